"""What the `!function` tags of this folder's YAML files name; the code is in stages/data/."""

from stages.data.benchmarks import benchmark_documents
from stages.data.lm_eval_tasks import documents, given_share, question_mean, score

__all__ = ["benchmark_documents", "documents", "given_share", "question_mean", "score"]
