"""What a shell completes behind `vold`: verbs and their options, recipes by name, keys of a recipe, and values where a
key has a few."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from vold.errors import ConfigError
from vold.run.command import VERBS
from vold.run.mistakes import models_in
from vold.run.names import close_to
from vold.run.recipe import Recipe
from vold.run.shipped import shipped_recipes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import BaseModel


def completion(shell: str) -> str:
    """A script that teaches a shell to complete. It holds all words: nothing is started while somebody types.

    Raises:
        ConfigError: none is written for this shell.
    """
    if shell not in SCRIPTS:
        close = close_to(shell, SCRIPTS)
        fix = f"did you mean {close!r}?" if close else f"one of {', '.join(SCRIPTS)}"
        raise ConfigError("no completion is written for this shell", got=shell, fix=fix)
    keys = keys_of(Recipe)
    recipe = [name for name, verb in VERBS.items() if verb.takes[:1] == ("RECIPE",)]
    alone = [name for name, verb in VERBS.items() if not verb.takes and verb.keys == "key.path=value"]
    keyed = [*recipe, *alone]
    options = {name: [f"--{one}" for one in verb.options] for name, verb in VERBS.items() if verb.options}
    words = {
        "VERBS": " ".join(VERBS),
        "RECIPES": " ".join(shipped_recipes()),
        "KEYS": " ".join(f"{key}=" for key in keys),
        "VALUES": " ".join(f"{key}={value}" for key, values in keys.items() for value in values),
        "SHELLS": " ".join(SCRIPTS),
        "SECOND_IS_RECIPE": "|".join(f"2:{name}" for name in recipe),
        "THEN_KEYS": "|".join(f"*:{name}" for name in keyed),
        "WITH_RECIPE": " ".join(recipe),
        "WITH_KEYS": " ".join(keyed),
        "WITH_KEYS_ALONE": " ".join(alone),
        "WITHOUT": " ".join(name for name in VERBS if name not in (*keyed, "completion")),
        "OPTIONS_BASH": " ".join(f'{name}) words="{" ".join(found)}" ;;' for name, found in options.items()),
        "OPTIONS_ZSH": " ".join(f"{name}) compadd -- {' '.join(found)} ;;" for name, found in options.items()),
        "OPTIONS_FISH": "\n".join(
            f"complete -c vold -n '__fish_seen_subcommand_from {name}' -l {one.removeprefix('--')}"
            for name, found in options.items()
            for one in found
        ),
    }
    script = SCRIPTS[shell]
    for name, found in words.items():
        script = script.replace(f"@{name}@", found)
    return script


def keys_of(section: type[BaseModel], above: str = "") -> dict[str, list[str]]:
    """Keys below a section that hold a value, by their whole path, with the values where there are a few.

    What stands under names of the user's own, such as task sets, is left out.

    Example:
        >>> from vold.run.stage_sections import Optimizer
        >>> keys_of(Optimizer, "sft.optimizer.")["sft.optimizer.schedule"]
        ['cosine', 'constant']
    """
    found: dict[str, list[str]] = {}
    for name, info in section.model_fields.items():
        if _by_name(info.annotation):
            continue
        inner = models_in(info.annotation)
        for model in inner:
            found |= keys_of(model, f"{above}{name}.")
        if not inner:
            found[f"{above}{name}"] = list(dict.fromkeys(_choices(info.annotation)))
    return found


def _by_name(annotation: Any) -> bool:
    return get_origin(annotation) is dict or any(_by_name(inner) for inner in get_args(annotation))


def _choices(annotation: Any) -> Iterator[str]:
    """Values that an annotation lists. A member of a list is none of its values."""
    if annotation is bool:
        yield from ("true", "false")
    elif annotation is type(None):
        yield "null"
    elif get_origin(annotation) is Literal:
        yield from map(str, get_args(annotation))
    elif get_origin(annotation) not in (tuple, list):
        for inner in get_args(annotation):
            yield from _choices(inner)


BASH = r"""# In ~/.bashrc: eval "$(vold completion bash)"
_vold() {
    local before typed words=
    read -ra before <<< "${COMP_LINE:0:COMP_POINT}."  # the dot stands behind the word that is typed, also an empty one
    typed=${before[-1]%.}
    COMPREPLY=()
    if [[ $typed == -* ]]; then
        case ${before[1]} in @OPTIONS_BASH@ esac
        COMPREPLY=($(compgen -W "--help $words" -- "$typed"))
        return
    fi
    case $((${#before[@]} - 1)):${before[1]} in
        1:*) words="@VERBS@" ;;
        2:completion) words="@SHELLS@" ;;
        @SECOND_IS_RECIPE@) words="@RECIPES@"
            COMPREPLY=($(compgen -f -X '!*.yaml' -- "$typed") $(compgen -d -S / -- "$typed")) ;;
        @THEN_KEYS@) if [[ $typed == *=* ]]; then words="@VALUES@"; else words="@KEYS@"; fi ;;
        *) COMPREPLY=($(compgen -f -- "$typed")) ;;
    esac
    COMPREPLY+=($(compgen -W "$words" -- "$typed"))
    if [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *[=/] ]]; then compopt -o nospace; fi
    if [[ $typed == *=* && $COMP_WORDBREAKS == *=* ]]; then COMPREPLY=("${COMPREPLY[@]#"${typed%%=*}="}"); fi
}
complete -F _vold vold
"""

ZSH = r"""#compdef vold
# In ~/.zshrc, below compinit: eval "$(vold completion zsh)"
_vold() {
    if [[ $PREFIX == -* ]]; then
        compadd -- --help
        case $words[2] in @OPTIONS_ZSH@ esac
        return
    fi
    case $((CURRENT - 1)):$words[2] in
        1:*) compadd -- @VERBS@ ;;
        2:completion) compadd -- @SHELLS@ ;;
        @SECOND_IS_RECIPE@) compadd -- @RECIPES@; _files -g '*.yaml' ;;
        @THEN_KEYS@) if [[ $PREFIX == *=* ]]; then compadd -- @VALUES@; else compadd -S '' -- @KEYS@; fi ;;
        *) _files ;;
    esac
}
compdef _vold vold
"""

FISH = r"""# In ~/.config/fish/config.fish: vold completion fish | source
function __vold_words; test (count (commandline -opc)) $argv; end
complete -c vold -f
complete -c vold -n '__vold_words -eq 1' -a '@VERBS@'
complete -c vold -n '__vold_words -eq 2; and __fish_seen_subcommand_from completion' -a '@SHELLS@'
complete -c vold -n '__vold_words -eq 2; and __fish_seen_subcommand_from @WITH_RECIPE@' -a '@RECIPES@' -F
complete -c vold -n '__vold_words -gt 2; and __fish_seen_subcommand_from @WITH_KEYS@' -a '@KEYS@ @VALUES@'
complete -c vold -n '__vold_words -eq 2; and __fish_seen_subcommand_from @WITH_KEYS_ALONE@' -a '@KEYS@ @VALUES@'
complete -c vold -n '__vold_words -gt 1; and __fish_seen_subcommand_from @WITHOUT@' -F
@OPTIONS_FISH@
"""

SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}
