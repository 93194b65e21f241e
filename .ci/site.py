"""Build the documentation site offline, and hold it to its links.

python .ci/site.py          build under out/site, then check
python .ci/site.py check    check what was built
"""

import inspect
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

ROOT = Path(__file__).parents[1]
OUT = ROOT / "out"
PAGES, SITE = OUT / "pages", OUT / "site"
BESIDE = {  # pages that live elsewhere in the repository
    "README.md": "readme.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "src/stableflow/bundled/MODEL_CARD.md": "model-card.md",
}
NO_PAGE = re.compile(r"\[([^\]]+)\]\(((?:\.\./)*(?:src|tests|examples|integrations|deploy)/[^)]*)\)")


def main() -> None:
    if sys.argv[1:] != ["check"]:
        build()
    wrong = check(SITE)
    if wrong:
        sys.exit("\n".join(wrong))
    print(f"{len(list(SITE.rglob('*.html')))} pages under {SITE.relative_to(ROOT)}: every link and anchor is there")


def build() -> None:
    """Gather the pages, write the reference and the navigation, and have Zensical build."""
    for folder in (PAGES, SITE):
        shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(ROOT / "docs", PAGES)
    for source, name in BESIDE.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        (PAGES / name).write_text(moved(text, Path(source).parent), encoding="utf-8")
    for page in PAGES.rglob("*.md"):
        page.write_text(on_site(page.read_text(encoding="utf-8")), encoding="utf-8")
    for notebook in PAGES.rglob("*.ipynb"):
        notebook.with_suffix(".md").write_text(as_page(notebook), encoding="utf-8")
    write_reference(PAGES / "reference")
    settings = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    settings |= {"docs_dir": PAGES.name, "site_dir": SITE.name, "nav": navigation(settings["nav"])}
    (OUT / "mkdocs.yml").write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    command = [str(Path(sys.executable).with_name("zensical")), "build", "--clean", "-f", str(OUT / "mkdocs.yml")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=OUT)
    if done.returncode:
        sys.exit(f"zensical failed:\n{done.stdout}\n{done.stderr}")


def moved(text: str, place: Path) -> str:
    """Return a page of the repository with its links as seen from the root of the site."""

    def link(match: re.Match[str]) -> str:
        target = match.group(2)
        if "://" in target or target.startswith("#"):
            return match.group(0)
        path, _, anchor = target.partition("#")
        inside = (ROOT / place / path).resolve().relative_to(ROOT)
        name = BESIDE.get(str(inside), str(inside).removeprefix("docs/"))
        return f"{match.group(1)}({name}{'#' + anchor if anchor else ''})"

    return re.sub(r"(!?\[[^\]]*\])\(([^)\s]+)\)", link, text)


def on_site(text: str) -> str:
    """Return a page whose links to the repository's own files are code, and whose links to moved pages are theirs."""
    text = NO_PAGE.sub(r"\1 (`\2`)", text)
    text = re.sub(r"\]\((?:\.\./)+(README|CHANGELOG|CONTRIBUTING)\.md", lambda m: f"]({m.group(1).lower()}.md", text)
    return text.replace(".ipynb)", ".md)")


def as_page(notebook: Path) -> str:
    """Return a notebook as a page: its texts and its code."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    texts = []
    for cell in cells:
        source = "".join(cell["source"])
        texts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
    return "\n\n".join(texts) + "\n"


def navigation(entries: list[Any]) -> list[Any]:
    """Return the navigation without pages that are not there; pages that nobody names come last."""
    kept = list(_present(entries))
    named = set(re.findall(r"[\w/-]+\.md", json.dumps(kept)))
    pages = {str(page.relative_to(PAGES)) for page in PAGES.rglob("*.md")}
    rest = sorted(page for page in pages - named if not page.startswith("reference/"))
    return [*kept, *([{"More": rest}] if rest else [])]


def _present(entries: list[Any]) -> Iterator[Any]:
    for entry in entries:
        ((title, value),) = entry.items()
        if isinstance(value, str):
            if (PAGES / value).exists():
                yield entry
        elif inner := list(_present(value)):
            yield {title: inner}


def write_reference(folder: Path) -> None:
    """Write a page a module of the public API, from docstrings and signatures."""
    import stableflow as sf

    folder.mkdir(parents=True)
    index = [
        "# Reference",
        "",
        "What `import stableflow as sf` names; everything else may change between versions.",
        "",
    ]
    for home, names in sf._HOMES.items():
        name = home.removeprefix("stableflow.")
        page = f"{name.replace('.', '-')}.md"
        things = [(each, getattr(sf, each)) for each in names]
        texts = [f"# {name}", "", _module_line(home), *(entry(each, thing) for each, thing in things)]
        (folder / page).write_text("\n".join(texts) + "\n", encoding="utf-8")
        index += [f"**[{name}]({page})** {_module_line(home)}", ""]
        index += [f"- [`{each}`]({page}#{each.lower()}) {_first_line(thing)}" for each, thing in things] + [""]
    index += ["**Editors**, by name: see [editors](../editors.md).", ""]
    (folder / "index.md").write_text("\n".join(index), encoding="utf-8")


def entry(name: str, thing: Any) -> str:
    """Return the section of one public name."""
    parts = [f"## {name}", "", *_signature(name, thing), "", *_docstring(inspect.getdoc(thing) or "")]
    if inspect.isclass(thing):
        for member, function in sorted(vars(thing).items()):
            plain = getattr(function, "__func__", getattr(function, "fget", function))
            if member.startswith("_") or not inspect.isroutine(plain) or not plain.__doc__:
                continue
            parts += ["", f"### {name}.{member}", "", *_signature(member, plain), ""]
            parts += _docstring(inspect.cleandoc(plain.__doc__))
    return "\n".join(["", *parts])


def _signature(name: str, thing: Any) -> list[str]:
    try:
        shown = str(inspect.signature(thing))
    except (ValueError, TypeError):
        return []
    shown = re.sub(r"<(?:function|object|class)[^>]*>|[\w.]+\(.*?0x[0-9a-f]+\)", "...", shown)
    shown = re.sub(r"\b(?:stableflow|collections|torch|pathlib|jaxtyping|PIL|typing|abc)\.(?:\w+\.)*", "", shown)
    if len(name + shown) > 76:
        shown = re.sub(r", (?=\*?\w+(?:: |, |=))", ",\n    ", shown)
    return ["```python", f"{name}{shown}", "```"]


SECTIONS = ("Args:", "Returns:", "Raises:", "Yields:", "Example:", "Source:")


def _docstring(text: str) -> list[str]:
    """Return a docstring as Markdown: its lists of arguments as lists, its examples as code."""
    lines: list[str] = []
    section = ""
    for line in text.splitlines():
        if line.strip() in SECTIONS:
            section = line.strip()
            lines += ["", f"**{section.removesuffix(':')}**", ""] + (["```python"] if section == "Example:" else [])
            continue
        if section and line and not line.startswith(" "):
            if section == "Example:":
                lines.append("```")
            section = ""
            lines.append("")
        if section == "Example:":
            if line.strip():
                lines.append(line[4:])
        elif section in ("Args:", "Raises:") and (item := re.match(r"    ([\w, *]+): (.*)", line)):
            lines.append(f"- `{item.group(1)}`: {_plain(item.group(2))}")
        elif section and line.startswith("    ") and line.strip():
            lines.append(("  " if lines and lines[-1].startswith(("- ", "  ")) else "") + _plain(line.strip()))
        else:
            lines.append(_plain(line))
    return [*lines, "```"] if section == "Example:" else lines


def _plain(text: str) -> str:
    """Text in which no character means markup by accident."""
    parts = text.split("`")
    parts[::2] = [re.sub(r"([*_<\[\]])", r"\\\1", part) for part in parts[::2]]
    return "`".join(parts)


def _first_line(thing: Any) -> str:
    documented = inspect.isroutine(thing) or inspect.isclass(thing)
    return _plain((inspect.getdoc(thing) or "").split("\n", 1)[0]) if documented else ""


def _module_line(home: str) -> str:
    return _plain((sys.modules[home].__doc__ or "").split("\n", 1)[0]) if home in sys.modules else ""


class Links(HTMLParser):
    """What a page points to, what it loads, and the anchors that it has."""

    def __init__(self, text: str):
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.anchors: set[str] = {""}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        given = dict(attrs)
        self.anchors |= {given[name] for name in ("id", "name") if given.get(name)}
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
        elif tag in ("img", "script", "iframe", "source") and given.get("src"):
            self.loads.append(given["src"])
        elif tag == "link" and given.get("href") and given.get("rel") != "canonical":
            self.loads.append(given["href"])


def check(site: Path) -> list[str]:
    """Return what is wrong: links and anchors that lead nowhere, and whatever is loaded from elsewhere."""
    pages = {page.resolve(): Links(page.read_text(encoding="utf-8")) for page in site.rglob("*.html")}
    wrong = [] if pages else [f"there is no site under {site}; build it first"]
    for page, links in pages.items():
        if page.name == "404.html":
            continue
        for load in links.loads:
            if urlsplit(load).netloc:
                wrong.append(f"{page.name} loads {load}")
        for link in [*links.links, *links.loads]:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            target = target / "index.html" if target.is_dir() else target
            if not target.exists():
                wrong.append(f"{page.relative_to(site.resolve())} points to {link}, which is not there")
            elif target in pages and unquote(parts.fragment) not in pages[target].anchors:
                wrong.append(f"{page.relative_to(site.resolve())} points to {link}, an anchor that is not there")
    return wrong


if __name__ == "__main__":
    main()
