#!/usr/bin/env bash
#SBATCH --job-name=lmft
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@300
# One training on 16 GPUs, a task for each GPU:
#   sbatch docs/launch/slurm.sh model=smollm2 data=files data.train=text.txt run.dir=/shared/runs run.name=first
# Five minutes before the time is over, SLURM sends SIGTERM: the step is completed and saved. The same line continues it.
set -eu
export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1}
srun python -m lmft.train trainer=fsdp2 \
  trainer.devices="$SLURM_NTASKS_PER_NODE" +trainer.num_nodes="$SLURM_JOB_NUM_NODES" "$@"
