#!/usr/bin/env bash
# The whole way from raw text to a BERT that predicts, on this machine's devices.
# Usage: bash scripts/quickstart.sh [WORKDIR [FLAG...]]
# WORKDIR: runs/quickstart unless given; run it again, it goes on where it stopped. FLAG: of scripts/pretrain.py.
set -euo pipefail
mkdir -p "${1:-$(dirname "$0")/../runs/quickstart}"
workdir=$(cd "${1:-$(dirname "$0")/../runs/quickstart}" && pwd)
shift $(($# > 0))
cd "$(dirname "$0")/.."
source scripts/environment.sh quickstart
installed=$SECONDS

python scripts/pretrain.py --config=configs/pretrain/quickstart.py --workdir="$workdir" \
    --sample="This is one of the [MASK] movies I have ever seen." \
    --sample="The acting was [MASK] and the story was boring." \
    --sample="I watched this film with my [MASK]." \
    --sample="It is not worth the [MASK] it takes to watch." "$@"

cat <<END

Done in $SECONDS s, $installed s of them installing. In $workdir:
  model/          the model in Hugging Face layout: transformers loads it as it is
  metrics.jsonl   every number; tensorboard --logdir $workdir/tensorboard shows the curves
  checkpoints/    to go on from: bash scripts/quickstart.sh $workdir --config.total_minutes=60
  tokenizer/, corpus/   vocabulary and tokens, with the quality report corpus/report.json
Try next (after: source .venv/bin/activate):
  echo "A [MASK] performance." | python scripts/predict.py fill-mask --model=$workdir
  python scripts/finetune.py --config=configs/finetune/few_labels.py --workdir=runs/few_labels --config.init_from=$workdir
  python scripts/pretrain.py --config=configs/pretrain/quickstart.py --workdir=runs/mine \\
      --config.data.source='YOUR/*.txt' --config.total_minutes=30
  python scripts/benchmark.py --suite=input --workdir=$workdir
END
