"""Where models of a recipe come from, and what a run has made so far."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from vold.errors import CheckpointError, ConfigError, VocabularyMismatch
from vold.model.certified import certified
from vold.model.chat import Chat
from vold.model.compiling import compile_layers, need_compiler
from vold.model.parallel import ALONE
from vold.model.place import give_back
from vold.model.policy import DTYPES, Policy
from vold.model.reading import empty_model, read_config, read_tokenizer
from vold.model.recompute import checkpoint_layers
from vold.model.sharding import layers_of
from vold.model.tokenizers import add_teacher_tokens, check_shared_ids
from vold.model.trial import ALSO
from vold.run.folders import verify_directory
from vold.run.order import seed_of
from vold.run.precision import precision
from vold.run.shipped import resolve

if TYPE_CHECKING:
    from vold.model.families import Part
    from vold.model.parallel import Processes
    from vold.model.quantized import Quantized
    from vold.run.recipe import Recipe, Student


def load_student(
    recipe: Recipe, path: str | None = None, *, train: bool = False, anew: bool = False, group: Processes = ALONE
) -> Policy:
    """The recipe's student, or another model in its place, with the recipe's frozen parts.

    `train` makes it ready for the loops: in training mode, with quantised weights, adapters and activation
    checkpointing as the recipe says. `anew` certifies it anew, and writes nothing. `group`: as for `load_model`.
    """
    spec: Student = recipe.learner
    policy = load_model(recipe, path or spec.path, spec.dtype, spec.freeze, spec.quantize if train else None, group)
    also = ALSO if anew else [way for way, wanted in _wanted(spec).items() if wanted and train]
    policy.certificate = made = certified(policy, None if anew else recipe.run.dir, group, also)
    _take_teacher_tokens(recipe, policy)
    if train:
        if spec.lora is not None:
            if why := made.why_not("adapters"):
                raise ConfigError(
                    "no adapters can be trained on this model", where="student.lora", got=why, fix="student.lora=null"
                )
            policy.add_lora(rank=spec.lora.rank, alpha=spec.lora.alpha, seed=seed_of(recipe.run.seed, "lora"))
        if spec.activation_checkpointing and not made.why_not("activation checkpointing"):
            checkpoint_layers(policy.model, spec.activation_checkpointing, spec.lora)
        if spec.compile:
            need_compiler(policy.model.device)
            compile_layers(layers_of(policy))
        policy.model.train()
    return policy


def load_students_chat(recipe: Recipe) -> Policy:
    """The recipe's student without values, on the host: where only its tokenizer and chat template are wanted, GPUs
    belong to others."""
    spec: Student = recipe.learner
    policy = load_empty(spec.path, precision(recipe, spec.path, spec.dtype))
    _take_teacher_tokens(recipe, policy)
    return policy


def _take_teacher_tokens(recipe: Recipe, policy: Policy) -> None:
    if recipe.learner.teacher_tokens == "add" and recipe.teacher is not None:
        teacher = read_tokenizer(resolve(recipe.teacher.path))
        add_teacher_tokens(policy.chat.tokenizer, teacher, rows=policy.rows)
        policy.ban_placeholders()


def _wanted(spec: Student) -> dict[str, object]:
    """By way of `vold.model.trial.ALSO`, whether training goes it."""
    return {"adapters": spec.lora, "activation checkpointing": spec.activation_checkpointing}


def check_teacher(student: Chat, teacher: Chat, *, where: str) -> None:
    """Compare token ids and end tokens of two models.

    Raises:
        VocabularyMismatch: the teacher reads ids differently.
    """
    check_shared_ids(student.tokenizer, teacher.tokenizer, where=where)
    if student.end_id != teacher.end_id:
        raise VocabularyMismatch(
            "student and teacher end a response with different tokens, so the student would never learn to stop",
            where=where,
            got=f"{student.tokenizer.eos_token!r} and {teacher.tokenizer.eos_token!r}",
            fix="set eos_token in one tokenizer_config.json to the other's",
        )


def load_model(
    recipe: Recipe,
    path: str,
    dtype: str,
    freeze: tuple[Part, ...] = (),
    quantize: Quantized | None = None,
    group: Processes = ALONE,
) -> Policy:
    """Any model, on the recipe's device, without a certificate. Of `group`, all of which load it, one process a node
    reads its files.

    Raises:
        CheckpointError: the directory is missing or does not match its manifest.
        ConfigError: there is no such device.
    """
    local, sent = resolve(path), group if quantize is None else ALONE
    if Path(local).is_dir() and sent.rank % sent.node == 0:  # whoever reads it, see `vold.model.sending`
        verify_directory(Path(local))
    device = recipe.run.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    elif device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("there is no GPU that PyTorch can use", where="run.device", got=device, fix="run.device=cpu")
    give_back(dead=True)
    dtype = precision(recipe, path, dtype)
    return Policy.load(local, dtype=dtype, device=device, freeze=freeze, quantize=quantize, group=sent)


def load_empty(path: str, dtype: str) -> Policy:
    """A model without values, on the host; see `vold.model.sending`."""
    local = resolve(path)
    config = read_config(local)
    return Policy(empty_model(config, DTYPES[dtype]), Chat.load(local, config))


def load_certified(
    recipe: Recipe, path: str, dtype: str, quantize: Quantized | None = None, group: Processes = ALONE
) -> Policy:
    """Any model, as by `load_model`, that does what it is certified for in this run."""
    policy = load_model(recipe, path, dtype, quantize=quantize, group=group)
    policy.certificate = certified(policy, recipe.run.dir, group)
    return policy


def stage_models(recipe: Recipe) -> dict[str, str]:
    """Models to evaluate by name: the recipe's own list, or every stage this run has finished."""
    if recipe.eval is not None and recipe.eval.models:
        return dict(recipe.eval.models)
    found = {"base": recipe.learner.path}
    for name, stage in (("sft", "sft"), ("vold", "distill")):
        final = recipe.run.dir / stage / "final"
        if final.is_dir():
            found[name] = str(final)
    return found


def sft_result(recipe: Recipe, stage: str = "distill") -> str:
    """The model the cold start of this run ended with, for a stage that starts from it.

    Raises:
        CheckpointError: the cold start has not been run.
    """
    final = recipe.run.dir / "sft" / "final"
    if not final.is_dir():
        raise CheckpointError(
            "this run has no cold start yet",
            where=str(final),
            fix=f"run `vold sft` with this recipe first, or set {stage}.init to a model",
        )
    return str(final)
