"""What the `!function` tags of this folder's YAML files name; the code is in stages/data/lm_eval_tasks.py."""

from stages.data.lm_eval_tasks import documents, given_share, question_mean, score

__all__ = ["documents", "given_share", "question_mean", "score"]
