"""What `deploy/` promises: one set of commands everywhere, alerts that parse and can be answered, nothing left out."""

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import promql_parser
import pytest
import yaml
from django.test import Client

ROOT = Path(__file__).resolve().parent.parent.parent
DEPLOY = ROOT / "deploy"
PROCESSES = ("web", "dispatch", "worker", "beat")


def procfile() -> dict[str, list[str]]:
    lines = (DEPLOY / "Procfile").read_text().splitlines()
    return {name: shlex.split(command) for name, _, command in (line.partition(": ") for line in lines)}


def essence(command: list[str]) -> list[str]:
    """The program, what it runs, and its queue: what must not differ from one form to another."""
    words = [word.rpartition("/")[2] if place == 0 else word for place, word in enumerate(command)]
    kept = {"granian", "celery", "worker", "beat", "dispatch", "--no-ws", "wsgi"}
    return [word for word in words if word in kept or "webhooks_platform" in word]


def kubernetes() -> Iterator[dict[str, Any]]:
    for path in sorted((DEPLOY / "kubernetes").glob("*.yaml")):
        yield from (document for document in yaml.safe_load_all(path.read_text()) if document)


@pytest.mark.parametrize("process", PROCESSES)
def test_a_process_is_started_by_the_same_command_in_every_form(process: str) -> None:
    wanted = essence(procfile()[process])

    unit = (DEPLOY / "systemd" / f"webhooks-{process}.service").read_text()
    (line,) = re.findall(r"^ExecStart=(.*)$", unit, re.MULTILINE)
    (deployment,) = [
        each
        for each in kubernetes()
        if each["kind"] == "Deployment" and each["metadata"]["name"] == f"webhooks-{process}"
    ]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    composed = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"][process]
    image = json.loads(
        re.findall(r"^CMD (\[.*\])$", (DEPLOY / "Dockerfile").read_text().replace("\\\n", ""), re.MULTILINE)[
            0
        ]
    )

    assert len(wanted) >= 3
    assert essence(shlex.split(line.replace("%%", "%"))) == wanted
    assert essence(container["command"]) == wanted
    assert essence(composed.get("command", image)) == wanted


def probe(file: str) -> list[str]:
    """Whether the file was touched within a minute."""
    return ["sh", "-c", f"find {file} -newermt '-60 seconds' | grep -q ."]


def test_the_pods_run_as_nobody_with_probes_limits_and_time_to_drain() -> None:
    pods = {
        each["metadata"]["name"]: each["spec"]["template"]["spec"]
        for each in kubernetes()
        if each["kind"] in ("Deployment", "Job")
    }

    assert set(pods) == {"webhooks-migrate", *(f"webhooks-{process}" for process in PROCESSES)}
    for name, pod in pods.items():
        (container,) = pod["containers"]
        assert (name, pod["securityContext"]["runAsNonRoot"]) == (name, True)
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["resources"]["limits"]["memory"]
    for name in ("dispatch", "worker", "beat"):
        (container,) = pods[f"webhooks-{name}"]["containers"]
        (file,) = [each["value"] for each in container["env"] if each["name"] == "WEBHOOKS_HEARTBEAT_FILE"]
        assert container["livenessProbe"]["exec"]["command"] == probe(file)
        assert {"name": "tmp", "mountPath": str(Path(file).parent)} in container["volumeMounts"]
    assert pods["webhooks-dispatch"]["terminationGracePeriodSeconds"] >= 40
    (web,) = pods["webhooks-web"]["containers"]
    assert web["lifecycle"]["preStop"] == {"exec": {"command": ["sleep", "5"]}}
    assert web["livenessProbe"]["httpGet"]["path"] == "/health/live"
    assert web["readinessProbe"]["httpGet"]["path"] == "/health/ready"


def test_the_image_holds_all_that_runs() -> None:
    copied = set(re.findall(r"^COPY (\w+) \w+$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE))
    rooms = {path.name for path in ROOT.iterdir() if (path / "__init__.py").exists()} - {"tests"}
    pages = {name for name in ("templates", "static", "locale") if (ROOT / name).exists()}

    assert copied == rooms | pages


DATA = ROOT / "tests" / "data"
"""Kubernetes' own description of its objects, and that of compose files, without their texts. (Apache License 2.0)"""


def test_the_manifests_are_valid_and_know_no_other_fields() -> None:
    described = json.loads((DATA / "kubernetes-1.30.json").read_text())

    seen = set()
    for each in kubernetes():
        kind = f"{each['apiVersion']} {each['kind']}"
        schema = described["kinds"][kind] | {"$defs": described["$defs"]}
        errors = jsonschema_rs.validator_for(schema).iter_errors(each)
        assert [(error.message, error.instance_path) for error in errors] == [], each["metadata"]
        seen.add(kind)

    assert seen == set(described["kinds"])


def test_the_compose_file_is_valid_and_knows_no_other_fields() -> None:
    validator = jsonschema_rs.validator_for(json.loads((DATA / "compose.json").read_text()))
    composed = yaml.safe_load((DEPLOY / "compose.yaml").read_text())

    errors = validator.iter_errors(composed)

    assert [(error.message, error.instance_path) for error in errors] == []
    for service in composed["services"].values():
        assert set(service.get("depends_on", ())) <= set(composed["services"])


def expressions() -> list[tuple[str, str]]:
    rules = yaml.safe_load((DEPLOY / "monitoring" / "alerts.yaml").read_text())["groups"][0]["rules"]
    panels = json.loads((DEPLOY / "monitoring" / "board.json").read_text())["panels"]
    return [(rule["alert"], rule["expr"]) for rule in rules] + [
        (panel["title"], target["expr"].replace("$__rate_interval", "5m"))
        for panel in panels
        for target in panel["targets"]
    ]


@pytest.mark.usefixtures("database")
def test_alerts_and_board_parse_and_ask_for_metrics_that_are_served() -> None:
    served = set(re.findall(r"^# TYPE (\w+)", Client().get("/metrics").content.decode(), re.MULTILINE))
    names = served | {f"{name}{suffix}" for name in served for suffix in ("_bucket", "_sum", "_count")}

    for title, expression in expressions():
        promql_parser.parse(expression)
        asked = set(re.findall(r"\bwebhooks_\w+", expression))
        assert asked, title
        assert asked <= names, (title, asked - names)


def promtool(*arguments: str) -> str:
    program = shutil.which("promtool")
    assert program is not None, (
        "No promtool. `.ci/run` installs it; on Debian it is in the package prometheus"
    )
    done = subprocess.run(
        [program, *arguments], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_alerts_parse_as_prometheus_reads_them() -> None:
    assert "SUCCESS: 13 rules found" in promtool("check", "rules", "deploy/monitoring/alerts.yaml")


def test_each_alert_is_raised_by_what_it_is_for_and_by_nothing_else() -> None:
    rules = yaml.safe_load((DEPLOY / "monitoring" / "alerts.yaml").read_text())["groups"][0]["rules"]
    cases = yaml.safe_load((ROOT / "tests" / "deploy" / "alerts.yaml").read_text())["tests"]
    checked = [check for case in cases for check in case["alert_rule_test"]]

    promtool("test", "rules", "tests/deploy/alerts.yaml")

    names = {rule["alert"] for rule in rules}
    assert {check["alertname"] for check in checked if check.get("exp_alerts")} == names
    assert {check["alertname"] for check in checked if not check.get("exp_alerts")} == names


def test_every_alert_says_what_to_do() -> None:
    rules = yaml.safe_load((DEPLOY / "monitoring" / "alerts.yaml").read_text())["groups"][0]["rules"]
    told = re.findall(
        r"^### (Webhooks\w+)\n\n(\S.*)$", (ROOT / "docs" / "operations.md").read_text(), re.MULTILINE
    )

    assert [name for name, _ in told] == [rule["alert"] for rule in rules]
    for rule in rules:
        assert rule["annotations"]["runbook"] == f"docs/operations.md#{rule['alert'].lower()}"
        assert rule["labels"]["severity"] in {"page", "warn"}
