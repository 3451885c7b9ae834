#!/bin/bash
# One Slurm job of three nodes: the learner on one, rollout workers and their env servers on two.
# CHECKPOINT=FOLDER sbatch configs/cluster/slurm.sh; the folder, and runs/, on a shared file system.
#SBATCH --job-name=vlarl
#SBATCH --nodes=3
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=1
#SBATCH --exclusive
#SBATCH --time=24:00:00
set -euo pipefail
: "${CHECKPOINT:?give the checkpoint to start from: CHECKPOINT=FOLDER sbatch $0}"

nodes=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
first=${nodes%%$'\n'*}
address=$(srun --nodes=1 --ntasks=1 --nodelist="$first" hostname --ip-address | awk '{print $1}')

# A token for this job alone: whoever lacks it cannot talk to the Ray cluster.
export RAY_AUTH_MODE=token
RAY_AUTH_TOKEN=$(python3 -c 'import secrets; print(secrets.token_hex(32))')
export RAY_AUTH_TOKEN
# Seconds that nodes may start one after another.
export RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=300

# Starts Ray on every node, the command on the first, and stops Ray when it ends.
srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" \
    ray symmetric-run --address "$address:6379" --min-nodes "$SLURM_JOB_NUM_NODES" \
    --num-cpus="$SLURM_CPUS_ON_NODE" -- \
    vlarl rl configs/rl/paper_simpler.yaml \
    model.checkpoint="$CHECKPOINT" name="simpler-$SLURM_JOB_ID" \
    cluster.address=auto cluster.strategy=disaggregated \
    rollout.workers=2 cluster.rollout.nodes=2 \
    cluster.learner.gpus=1 cluster.rollout.gpus=1 \
    env.servers=8 cluster.envs.cpus=8
