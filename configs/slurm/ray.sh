#!/bin/bash
# A verb on all nodes of a SLURM job: Ray starts on each, the verb runs on the first, both end.
#   sbatch --nodes 4 --cpus-per-task 64 --gpus-per-node 8 --time 12:00:00 configs/slurm/ray.sh \
#     bench --config configs/bench/full.yaml --workers 32 --gpus_per_worker 1
# From a folder that all nodes see, as they have to see data, models and outputs. Stopped by
# its time or by hand, the same command goes on with what is left. A node has one such job at a
# time: what ends a Ray ends all that its user has there.
#SBATCH --ntasks-per-node=1 --exclusive
set -euo pipefail

# Everything is read to its end: under pipefail, who writes to a reader that left has failed.
nodes=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
# By its number: gRPC asks a name server alone, and a node's own name may be its loopback.
addresses=$(getent ahostsv4 "${nodes%%$'\n'*}" | awk '$1 !~ /^127\./ {print $1}')
ip=${addresses%%$'\n'*}
ip=${ip:-$(hostname --all-ip-addresses | awk '{print $1}')}
address=$ip:6379
# Ray listens on the network of the nodes: only who has this job's token may join.
RAY_AUTH_TOKEN=$(od -An -N 24 -t x1 /dev/urandom | tr -d ' \n')
export RAY_AUTH_TOKEN RAY_AUTH_MODE=token
export RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=300 # seconds until all nodes are there

# srun does not take --cpus-per-task from sbatch, and Ray would count all of a node's processors.
cpus=${SLURM_CPUS_PER_TASK:-1}
srun --cpus-per-task "$cpus" ray symmetric-run --address "$address" --min-nodes "$SLURM_NNODES" \
  --num-cpus "$cpus" -- env RAY_ADDRESS="$address" shortcut-lightning "$@" --engine ray
