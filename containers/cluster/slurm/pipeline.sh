#!/usr/bin/env bash
# Submit the whole pipeline, with SHARDS jobs for each stage that draws answers and NODES nodes for training (which is
# train.launch.num_machines). Anywhere:
#
#   containers/cluster/slurm/pipeline.sh [SHARDS [NODES]]
#
# Partition, account and the like: SBATCH_PARTITION, SBATCH_ACCOUNT, ... in the environment, see `man sbatch`.
set -euo pipefail
cd "$(dirname "$0")/../../.."
shards=${1:-4} nodes=${2:-1}

submit() { # [OPTION...] SCRIPT [ARGUMENT...]: the number of the job. One that waits for a failed job is cancelled.
  sbatch --parsable --kill-on-invalid-dep=yes "$@"
}

draw() { # STAGE [OPTION...]
  submit "${@:2}" --array="0-$((shards - 1))" containers/cluster/slurm/shards.sbatch "$1"
}

sample=$(draw sample)
base=$(draw evaluate@base)
ratio=$(submit --dependency="afterok:$sample" containers/cluster/slurm/stage.sbatch label-by-length ratio-schedule)
train=$(submit --dependency="afterok:$ratio" --nodes="$nodes" containers/cluster/slurm/train.sbatch)
candidate=$(draw evaluate@candidate --dependency="afterok:$train")
report=$(submit --dependency="afterok:$base:$candidate" containers/cluster/slurm/stage.sbatch)
echo "Submitted $sample $base $ratio $train $candidate $report; the last prints the report in slurm-tldr-stage-$report.log."
