"""A few rows of every data set in its official format, oddities included: for the tests of fine-tuning's data."""

import json
from pathlib import Path

FOLDERS = {
    "cola": "CoLA",
    "sst2": "SST-2",
    "mrpc": "MRPC",
    "qqp": "QQP",
    "stsb": "STS-B",
    "mnli": "MNLI",
    "qnli": "QNLI",
    "rte": "RTE",
    "wnli": "WNLI",
    "squad": "squad",
    "squad2": "squad",
    "conll2003": "conll2003",
    "swag": "swag",
    "race": "RACE",
}
CONTEXT = "  In May, Anna  went to the city of Ulm; May was warm. The (C++  code), to-be-or-not-to-be"
QUOTE = '"Unclosed, as GLUE has them'
_MNLI = "index promptID pairID genre sentence1_binary_parse sentence2_binary_parse sentence1_parse sentence2_parse"
_STSB = "index genre filename year old_index source1 source2 sentence1 sentence2"
_SWAG = "video-id,fold-ind,startphrase,sent1,sent2,gold-source,ending0,ending1,ending2,ending3"
_MRPC = "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String"


def _tsv(*lines: str) -> str:
    """The first line is of names, separated by spaces; in the others a | separates."""
    names, *rows = lines
    return "\n".join([names.replace(" ", "\t"), *(row.replace("|", "\t") for row in rows)]) + "\n"


def _glue_pairs(columns: str, first: str, second: str) -> dict[str, str]:
    """QNLI, RTE and WNLI differ in names only."""
    return {
        "train.tsv": _tsv(f"{columns} label", f"0|{QUOTE}|So?|{first}", f"1|a\x85b\u2028c|d|{second}"),
        "dev.tsv": _tsv(f"{columns} label", f"0|One.|Two.|{second}"),
        "test.tsv": _tsv(columns, "0|Three.|Four.", "1|Five.|Six."),
    }


def _mnli(split: str) -> str:
    parses = "p|p|p|p"
    if split == "train":
        row = f"0|31|31n|news|{parses}|{QUOTE}|He said.|neutral|neutral"
        return _tsv(f"{_MNLI} sentence1 sentence2 label1 gold_label", row, row.replace("neutral", "entailment"))
    if split.startswith("test"):
        return _tsv(f"{_MNLI} sentence1 sentence2", f"0|31|31n|news|{parses}|{split}|None.")
    labels = " ".join(f"label{number}" for number in range(1, 6))
    row = f"0|31|31n|news|{parses}|{split}|Why.|a|b|c|d|e|contradiction"
    return _tsv(f"{_MNLI} sentence1 sentence2 {labels} gold_label", row)


def _squad(version: str, split: str) -> str:
    asked = [
        {"id": f"{split}1", "question": "Who went?", "answers": [{"text": "Anna", "answer_start": 10}] * 2},
        {"id": f"{split}2", "question": "When?", "answers": [{"text": "May", "answer_start": 41}]},
    ]
    if version == "v2.0":
        asked = [{**item, "is_impossible": False} for item in asked]
        asked.append({"id": f"{split}3", "question": "Why?", "answers": [], "is_impossible": True})
    article = {"title": "Ulm", "paragraphs": [{"context": CONTEXT, "qas": asked}]}
    return json.dumps({"version": version, "data": [article]})


def _race(level: str) -> str:
    return json.dumps(
        {
            "article": f"An article,\nof {level} school.",
            "questions": ["It is _ today.", "Why?"],
            "options": [["hot", "cold", "wet", "dry"], ["a b", "c", "d", "e"]],
            "answers": ["B", "D"],
            "id": f"{level}7.txt",
        }
    )


CONLL = "-DOCSTART- -X- -X- O\n\nEU NNP B-NP B-ORG\nrejects VBZ B-VP O\nit PRP B-NP O\n\nPeter NNP B-NP B-PER\n\n"

FILES: dict[str, str] = {
    "CoLA/train.tsv": f"gj04\t1\t\tThey said {QUOTE}.\ncj99\t0\t*\tBad this is.\n",
    "CoLA/dev.tsv": "gj04\t1\t\tSentence.\n",
    "CoLA/test.tsv": "index\tsentence\n0\tWho knows?\n1\tLabel.\n",
    "SST-2/train.tsv": f"sentence\tlabel\n{QUOTE} \t1\nso\u2028bad \t0\n",
    "SST-2/dev.tsv": "sentence\tlabel\nfine .\t1\n",
    "SST-2/test.tsv": "index\tsentence\n0\tunknown .\n",
    "MRPC/train.tsv": f"\ufeff{_MRPC}\n1\t12\t13\t{QUOTE}.\tHe said so.\n0\t14\t15\tThis.\tThat.\n",
    "MRPC/dev.tsv": "1\t16\t17\tNo header here.\tAs in some copies.\n",
    "MRPC/test.tsv": f"index{_MRPC.removeprefix('Quality')}\n0\t18\t19\tOne.\tTwo.\n",
    "QQP/train.tsv": _tsv(
        "id qid1 qid2 question1 question2 is_duplicate",
        f"7|1|2|{QUOTE}?|Who?|1",
        "8|3|4|Was he real? A torn row.",
        '"|Was he?|0',
        "9|5|6|How?||0",
    ),
    "QQP/dev.tsv": _tsv("id qid1 qid2 question1 question2 is_duplicate", "7|1|2|So?|Why?|0"),
    "QQP/test.tsv": _tsv("id question1 question2", "0|So?|Why?"),
    "STS-B/train.tsv": _tsv(f"{_STSB} score", f"0|news|f|2012|1|n|n|{QUOTE}.|He said.|3.800", "1|n|f|y|1|n|n|A.|B.|5"),
    "STS-B/dev.tsv": _tsv(f"{_STSB} score", "0|news|f|2012|1|n|n|One.|Two.|0.000"),
    "STS-B/test.tsv": _tsv(_STSB, "0|news|f|2012|1|n|n|One.|Two."),
    **{
        f"MNLI/{split}.tsv": _mnli(split)
        for split in ("train", "dev_matched", "dev_mismatched", "test_matched", "test_mismatched")
    },
    **{
        f"{folder}/{name}": text
        for folder, columns, first, second in (
            ("QNLI", "index question sentence", "entailment", "not_entailment"),
            ("RTE", "index sentence1 sentence2", "not_entailment", "entailment"),
            ("WNLI", "index sentence1 sentence2", "1", "0"),
        )
        for name, text in _glue_pairs(columns, first, second).items()
    },
    **{
        f"squad/{split}-{version}.json": _squad(version, split)
        for split in ("train", "dev")
        for version in ("v1.1", "v2.0")
    },
    **{f"conll2003/{split}.txt": CONLL for split in ("train", "valid", "test")},
    "swag/train.csv": f',{_SWAG},label\n0,v1,1,x,"He says ""no"", twice.",He,gold,goes,"sits, then",runs,stays,2\n',
    "swag/val.csv": f",{_SWAG},label\n0,v1,1,x,She sat.,Then she,gold,a,b,c,d,0\n",
    "swag/test.csv": f",{_SWAG}\n0,v1,1,x,She sat.,Then she,gold,a,b,c,d\n",
    **{
        f"RACE/{split}/{level}/7.txt": _race(level)
        for split in ("train", "dev", "test")
        for level in ("high", "middle")
    },
    # What TFDS makes MRPC of.
    "msr_paraphrase_train.txt": f"\ufeff{_MRPC}\n1\t12\t13\t{QUOTE}.\tHe said so.\n0\t14\t15\tThis.\tThat.\n",
    "msr_paraphrase_test.txt": f"\ufeff{_MRPC}\n0\t18\t19\tOne.\tTwo.\n",
    "mrpc_dev_ids.tsv": "14\t15\n",
}


def write_all(root: Path) -> Path:
    """Writes every file below `root`."""
    for name, text in FILES.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode("utf-8"))
    return root
