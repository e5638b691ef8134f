"""The forms of the report: schema, Markdown, JUnit, and the page, in a real browser."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree as ET

import jsonschema
import pytest

from infer_tool import bench, optimize, verify
from infer_tool.cli import main
from infer_tool.report import schema
from infer_tool.report.charts import front_of
from infer_tool.report.html import to_html
from infer_tool.report.junit import to_junit
from infer_tool.report.model import Candidate, Gate, Layer, Report
from infer_tool.report.write import MOST_CHARACTERS, to_json, to_markdown, write_report

SAMPLES = Path(__file__).parents[2] / "sample_models"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
VOID = {"meta", "link", "br", "img", "input", "hr"}
HOSTILE = "</script><script>document.title='stolen'</script>\x1b[31m|`"


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Report:
    """Of every part something: gates, latency, layers, a search, names that attack."""
    output = tmp_path_factory.mktemp("report") / "m.onnx"
    made = optimize(SAMPLES / "digits_cnn.onnx", output, max_size="1MB")
    timed = bench(
        SAMPLES / "digits_cnn.onnx", output, engine=("onnxruntime",), runs=20, profile=True
    )
    made.latency = timed.latency
    made.details = timed.details
    made.outputs = verify(SAMPLES / "digits_cnn.onnx", output).outputs
    made.gates.append(Gate(HOSTILE, 1.0, 2.0, False))
    made.layers.append(
        Layer(HOSTILE, "Conv", bytes=5, ms=0.5, noise=float("nan"), own_noise=float("inf"))
    )
    made.warnings.append(HOSTILE)
    made.candidates = [
        Candidate(str(n), size, drop, None, n == 2)
        for n, (size, drop) in enumerate([(300, 0.0), (200, 0.1), (100, 0.2), (150, 0.3)])
    ]
    made.passed = False
    return made


def test_the_published_schema_is_that_of_the_code(report) -> None:
    assert schema.FILE.read_text() == schema.text(), "python -m infer_tool.report.schema"
    validator = jsonschema.Draft202012Validator(json.loads(schema.FILE.read_text()))
    validator.check_schema(validator.schema)
    document = json.loads(to_json(report))
    validator.validate(document)
    for change in ({"schema": 2}, {"gates": [{"name": "x"}]}, {"surprise": 1}, {"passed": "yes"}):
        assert not validator.is_valid({**document, **change})


def test_junit_has_a_case_for_every_gate_and_output(report) -> None:
    suite = ET.fromstring(to_junit(report)).find("testsuite")
    assert suite is not None
    cases = suite.findall("testcase")
    assert len(cases) == len(report.gates) + len(report.outputs) + 1 == int(suite.get("tests", 0))
    failed = [c.get("name") for c in cases if c.find("failure") is not None]
    assert len(failed) == int(suite.get("failures", 0)) == 2
    assert failed[-1] == "passed"


def test_markdown_fits_a_comment(report) -> None:
    assert "**FAILED**" in to_markdown(report)
    assert report.reproduce in to_markdown(report)
    many = Report("verify", {}, outputs=report.outputs * 2000)
    text = to_markdown(many)
    assert len(text) < MOST_CHARACTERS + 200
    assert text.endswith("report.json")


@pytest.mark.parametrize("command", ["bench", "verify", "inspect", "doctor"])
def test_commands_without_passes_write_reports_too(command, tmp_path) -> None:
    models = [str(SAMPLES / "digits_mlp.onnx")] * {"verify": 2, "doctor": 0}.get(command, 1)
    assert main([command, *models, "--report", str(tmp_path)]) == 0
    assert {p.name for p in tmp_path.iterdir()} == {
        "report.json", "report.md", "report.html", "junit.xml",
    }  # fmt: skip


class _Balanced(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag, attrs) -> None:
        self.links += [v or "" for k, v in attrs if k in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_and_loads_nothing(report) -> None:
    page = to_html(report)
    assert page == to_html(report)
    parser = _Balanced()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    assert parser.links == ["data:,"]
    assert not re.search(r"(?i)https?://(?!www\.w3\.org)|@import|url\(", page)
    assert page.index("FAILED") < page.index("<table")
    assert HOSTILE not in page
    assert page.count("<svg") == 4
    assert len(page) < 400_000


def test_front() -> None:
    points = [
        Candidate("", b, d, None) for b, d in ((3, 0.0), (1, 0.5), (2, 0.5), (2, 0.2), (4, 0.1))
    ]
    assert [(c.bytes, c.drop) for c in front_of(points)] == [(1, 0.5), (2, 0.2), (3, 0.0)]


PROBE = """
<script>
const header = document.querySelector("#layers th:nth-child(3) button");
const column = () => [...document.querySelectorAll("#layers tbody tr")].map((r) => Number(r.cells[2].dataset.sort));
header.click(); const down = column(); header.click(); const up = column();
const found = {
  width: document.documentElement.scrollWidth, window: window.innerWidth, title: document.title,
  down: down.every((v, i) => i === 0 || down[i - 1] >= v), up: up.every((v, i) => i === 0 || up[i - 1] <= v),
  rows: down.length, tall: document.documentElement.scrollHeight,
  dark: getComputedStyle(document.body).backgroundColor,
};
document.documentElement.innerHTML = "<pre id=found>" + JSON.stringify(found) + "</pre>";
</script>
"""


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_in_a_browser_on_a_phone(report, tmp_path, scheme) -> None:
    """No error on the console, tables sort, nothing is wider than 360 pixels."""
    write_report(report, tmp_path)
    page = (tmp_path / "report.html").read_text()
    frame = tmp_path / "probe.html"
    frame.write_text(page.replace("</body>", f"{PROBE}</body>"))
    outer = tmp_path / "phone.html"  # windows of the browser are never as narrow as a phone
    outer.write_text(
        f'<iframe src="probe.html" width=360 height=800 id=f style="color-scheme:{scheme}"></iframe>'
    )
    command = [
        str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
        "--no-first-run", "--disable-background-networking", "--disable-component-update",
        "--disable-sync", "--enable-logging=stderr",
        f"--user-data-dir={tmp_path / 'profile'}", "--allow-file-access-from-files",
        f"--blink-settings=preferredColorScheme={int(scheme == 'light')}", "--dump-dom",
    ]  # fmt: skip
    plain = subprocess.run(
        [*command, str(tmp_path / "report.html")],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "CONSOLE" not in plain.stderr, plain.stderr
    script = (
        "<script>f.onload = () => { document.body.textContent = "
        "f.contentDocument.getElementById('found').textContent; }</script>"
    )
    outer.write_text(outer.read_text() + script)
    run = subprocess.run(
        [*command, str(outer)], capture_output=True, text=True, timeout=120, check=True
    )
    assert "CONSOLE" not in run.stderr, run.stderr
    found = json.loads(re.search(r"\{.*\}", run.stdout, re.DOTALL)[0])
    assert found["title"].endswith("FAILED"), "a name in the report ran as code"
    assert found["width"] <= 360
    assert found["down"]
    assert found["up"]
    assert found["rows"] > 5
    assert found["dark"] == ("rgb(246, 247, 249)" if scheme == "light" else "rgb(15, 19, 24)")
