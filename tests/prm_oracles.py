"""Each format as its authors' own evaluation does it: one solution at a time, the usual tokenizer calls, all logits."""

from __future__ import annotations

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Qwen2Model


def rlhflow(folder, problem, steps):
    """A dialogue to the "+" of step k, the logits that predict this one."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    plus, minus = tokenizer.convert_tokens_to_ids(["+", "-"])
    scores, dialogue = [], []
    for step in [f"{problem} {steps[0].strip()}", *(step.strip() for step in steps[1:])]:
        dialogue += [{"role": "user", "content": step}, {"role": "assistant", "content": "+"}]
        ids = tokenizer.apply_chat_template(dialogue, date_string="26 Jul 2024", return_tensors="pt", return_dict=True)[
            "input_ids"
        ]
        with torch.no_grad():
            logits = model(ids).logits[0, -3]  # "+" is the token before the last, which ends the turn
        scores.append(logits[[plus, minus]].softmax(-1)[0].item())
    return scores


def math_shepherd(folder, problem, steps):
    """One text with a tag behind each step, the logits at all tags."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    candidates = tokenizer.encode("+ -")[1:]
    tag = tokenizer.encode("ки")[-1]
    ids = torch.tensor([tokenizer.encode(problem + " " + "\n".join(step.strip() + " ки" for step in steps))])
    with torch.no_grad():
        scores = model(ids).logits[0][:, candidates].softmax(-1)[:, 0]
    return scores[ids[0] == tag].tolist()


def qwen(folder, problem, steps):
    """A dialogue with a separator behind each step, two classes at all separators."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    system = "Please reason step by step, and put your final answer within \\boxed{}."
    answer = "<extra_0>".join(step.strip() for step in steps) + "<extra_0>"
    roles = zip(("system", "user", "assistant"), (system, problem, answer), strict=True)
    dialogue = [{"role": role, "content": content} for role, content in roles]
    text = tokenizer.apply_chat_template(dialogue, tokenize=False, add_generation_prompt=False)
    ids = torch.tensor([tokenizer.encode(text, add_special_tokens=False)])
    weights, hidden = hidden_states(folder, ids)
    inner = (hidden @ weights["score.0.weight"].T + weights["score.0.bias"]).relu()
    classes = inner @ weights["score.2.weight"].T + weights["score.2.bias"]
    return classes.softmax(-1)[ids[0] == tokenizer.convert_tokens_to_ids("<extra_0>")][:, 1].tolist()


def skywork(folder, problem, steps):
    """Problem and lines encoded one by one, a value at the line break behind each; a step has that of its last line."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    ids, ends = tokenizer.encode(tokenizer.bos_token + problem + "\n", add_special_tokens=False), []
    for step in steps:
        for line in step.strip().split("\n"):
            ids += tokenizer.encode(line, add_special_tokens=False) + tokenizer.encode("\n", add_special_tokens=False)
        ends.append(len(ids) - 1)
    weights, hidden = hidden_states(folder, torch.tensor([ids]))
    values = hidden @ weights["v_head.summary.weight"].T + weights["v_head.summary.bias"]
    return values.sigmoid()[ends, 0].tolist()


def hidden_states(folder, ids):
    weights = load_file(folder / "model.safetensors")
    model = Qwen2Model.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        return weights, model(ids).last_hidden_state[0]


ALL = {"rlhflow": rlhflow, "math-shepherd": math_shepherd, "qwen2.5-math-prm": qwen, "skywork": skywork}
