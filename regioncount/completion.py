"""Completion of options and choices in bash: the candidates, and the script that requests them."""

import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from regioncount.composition import option_names
from regioncount.config.descriptions import choices_of
from regioncount.config_files import CONFIGS, LAUNCHERS, group_choices, group_names
from regioncount.errors import InputError

# The function calls the command itself. Bash replaces only what follows the last of COMP_WORDBREAKS, such as "=", so the
# part before it is removed from each candidate. Python and uv get it only if they have no completion of their own.
BASH = """\
_regioncount_completion() {
    local line=${COMP_LINE:0:$COMP_POINT} word command candidate
    word=${line##*[[:space:]]}
    [[ $line =~ ^(.*(regioncount-(train|measure|sweep)|(train|measure|sweep)\\.py))[[:space:]] ]] || return 0
    command=${BASH_REMATCH[1]}
    local kept=${word%"${word##*[=:]}"}
    [[ $COMP_WORDBREAKS == *=* ]] || kept=
    COMPREPLY=()
    while IFS= read -r candidate; do
        [[ -n $candidate ]] && COMPREPLY+=("${candidate#"$kept"}")
    done < <(COMP_LINE=$line eval "$command --shell-completion query=bash" 2>/dev/null)
}
complete -o nospace -o default -F _regioncount_completion \\
    regioncount-train regioncount-measure regioncount-sweep train.py measure.py sweep.py ./train.py ./measure.py ./sweep.py
for _regioncount_program in python python3 uv; do
    complete -p $_regioncount_program >/dev/null 2>&1 ||
        complete -o nospace -o default -F _regioncount_completion $_regioncount_program
done
unset _regioncount_program"""
BASH_UNINSTALL = """\
eval "$(complete -p | sed -n 's/^complete .*-F _regioncount_completion /complete -r /p')"
unset -f _regioncount_completion"""


def shell_completion(config_name: str, request: str) -> str:
    """Return what --shell-completion prints.

    Args:
        config_name: "train", "measure" or "sweep".
        request: "install=bash" or "uninstall=bash" for a script to evaluate; "query=bash" for the candidates for the last
            word of the line in the environment variable COMP_LINE, one per line.

    Raises:
        InputError: The shell is not supported.
    """
    action, _, shell = request.partition("=")
    if shell != "bash":
        raise InputError(f"--shell-completion {request}: only bash is supported; write {action}=bash")
    if action == "install":
        return BASH
    if action == "uninstall":
        return BASH_UNINSTALL
    line = os.environ.get("COMP_LINE", "")
    return "\n".join(candidates(config_name, line[: int(os.environ.get("COMP_POINT") or len(line))]))


def candidates(config_name: str, line: str) -> list[str]:
    """Return the completions of the last word of a command line.

    Args:
        config_name: "train", "measure" or "sweep".
        line: The command line up to the cursor.
    """
    after = re.split(r"(?:regioncount-|\b)(?:train|measure|sweep)(?:\.py)?(?=\s)", line, maxsplit=1)[-1]
    words, word = after.split()[:-1] if after[-1:].strip() else after.split(), re.split(r"\s", after)[-1]
    if any(part in ("-m", "--multirun") for part in words):
        config_name = "sweep"
    if word.startswith("-") and "=" not in word:
        flags = ["--help", "--version", "--config-dir=", "--cfg", "--info", "--shell-completion", "--hydra-help"]
        flags += ["--multirun"] * (config_name == "train")
        return [flag for flag in flags if flag.startswith(word)]
    dashes, word = word[: len(word) - len(word.lstrip("-+~"))], word.lstrip("-+~")
    option, separator, value = word.partition("=")
    folders = [CONFIGS, *_config_dirs(words)]
    if separator:
        kept = re.sub(r"[^,\[]*$", "", value)  # of a list or of several values
        choices = _choices(option, folders)
        completed = [f"{option}={kept}{choice}" for choice in choices if choice.startswith(value.removeprefix(kept))]
    else:
        names = option_names(config_name, words)
        groups = ["dataset", "model", "regions"] if config_name == "measure" else group_names(folders)
        if config_name == "sweep":
            names += ["hydra/launcher", "hydra.launcher.n_jobs"]
        completed = [f"{name}=" for name in dict.fromkeys([*groups, *names]) if name.startswith(option)]
    return [f"{dashes}{text}" for text in completed]


def _choices(option: str, folders: Sequence[Path]) -> Sequence[str]:
    if option == "hydra/launcher":
        return LAUNCHERS
    return group_choices(option, folders) if option in group_names(folders) else choices_of(option)


def _config_dirs(words: Sequence[str]) -> list[Path]:
    """Return the directories that --config-dir names in a command line."""
    text = " ".join(words)
    given = re.findall(r"(?:--config-dir|-cd)[= ](\S+)", text)
    folders = [Path(part).expanduser() for path in given for part in shlex.split(path)]
    return [folder for folder in folders if folder.is_dir()]
