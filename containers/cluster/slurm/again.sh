# shellcheck shell=bash
# Read by the job scripts beside it: `again COMMAND...` runs a command of tldr in such a way that a stopped job goes on.
#
# Slurm warns the job script with SIGUSR1: at --signal seconds before the time limit, when the job is preempted (where the
# cluster has SlurmctldParameters=preempt_send_user_signal), or by `scancel --batch --signal=USR1 JOB`. The command then gets
# SIGTERM, keeps what is finished and ends with code 75, and the job goes back into the queue. There the same command goes on.
# Any other code is the job's own. SIGTERM from Slurm (scancel JOB) reaches the command without our help and ends the job.

# What a command runs in. Empty: the environment that the job was submitted from. Inside the image (container.engine stays
# host; not tested): RUN=(apptainer exec --nv --bind "$PWD" --pwd "$PWD" tldr-cuda.sif)
RUN=()

child='' warned='' num_signals=0
trap 'num_signals=$((num_signals + 1)); warn' USR1
trap 'num_signals=$((num_signals + 1))' TERM

warn() { # once: at a second SIGTERM tldr ends at once
  [ -n "$warned" ] || [ -z "$child" ] || kill -TERM "$child"
  warned=yes
}

again() { # COMMAND...: returns if it ended well, else ends the job
  local code seen=''
  [ -z "$warned" ] || put_back
  "${RUN[@]}" "$@" &
  child=$!
  until [ "$seen" = "$num_signals" ]; do # `wait` returns early at a signal
    seen=$num_signals
    wait "$child" && code=0 || code=$?
  done
  child=''
  case $warned$code in
    0 | yes0) return 0 ;;
    yes75 | yes143) put_back ;; # 143: it was still starting
  esac
  exit "$code"
}

put_back() { # The same job again, with its number and whatever depends on it. Of an array this task only.
  scontrol requeue "${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_}${SLURM_ARRAY_TASK_ID:-$SLURM_JOB_ID}"
  exit 75
}
