#!/usr/bin/env bash
# One training on the GPUs of this machine, by torchrun. The first argument is the number of processes, one for each GPU:
#   bash docs/launch/torchrun.sh 8 model=smollm2 data=files data.train=text.txt run.name=first
# On two machines with a common file system, the same line on each, with the first machine's address:
#   NODES=2 HEAD=10.0.0.1:29500 bash docs/launch/torchrun.sh 8 run.name=first …
set -eu
processes=$1
shift
nodes=${NODES:-1}
exec torchrun --nnodes "$nodes" --nproc-per-node "$processes" --rdzv-backend c10d --rdzv-id lmft \
  --rdzv-endpoint "${HEAD:-localhost:0}" -m lmft.train \
  trainer=fsdp2 trainer.devices="$processes" +trainer.num_nodes="$nodes" "$@"
