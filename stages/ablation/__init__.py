"""The ablation: which ways to move the ratio are compared, on what, and what comes out. Runs nothing itself."""
