"""junit.xml: what CI servers show as tests: a case for each gate and each verified output."""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

if TYPE_CHECKING:
    from infer_tool.report.model import Report


def to_junit(report: Report) -> str:
    """One suite; a command without gates and outputs is one case itself."""
    suite = ET.Element("testsuite", name=f"infertool.{report.command}")
    for gate in report.gates:
        case = _case(suite, f"{suite.get('name')}.gates", gate.name)
        if not gate.passed:
            _failure(case, f"{gate.name} is {gate.value:.6g}, limit {gate.limit:.6g}")
    for row in report.outputs:
        case = _case(suite, f"{suite.get('name')}.outputs", f"{row.output} on {row.engine}")
        if not row.passed:
            text = f"max abs {row.max_abs:.3g}, max rel {row.max_rel:.3g}, {row.sqnr_db:.1f} dB"
            _failure(case, f"{text}; asked {row.asked}")
    whole = _case(suite, str(suite.get("name")), "passed")
    if not report.passed:
        _failure(whole, "see the other cases")
    suite.set("tests", str(len(suite)))
    suite.set("failures", str(len(suite.findall("testcase/failure"))))
    suite.set("errors", "0")
    suite.set("time", f"{sum(s.seconds for s in report.stages):.3f}")
    root = ET.Element("testsuites")
    root.append(suite)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True)


def _case(suite: ET.Element, group: str, name: str) -> ET.Element:
    return ET.SubElement(suite, "testcase", classname=group, name=_printable(name))


def _failure(case: ET.Element, message: str) -> None:
    ET.SubElement(case, "failure", message=_printable(message), type="failed")


def _printable(text: str) -> str:
    """XML has no control characters, but names of tensors may."""
    return "".join(c if c.isprintable() else "?" for c in text)
