"""Where the stages run. Only the `host` engine exists so far; the image lock and the other engines have their own issue."""
