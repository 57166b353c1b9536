"""replica-set-compose.yml and ops/Dockerfile, held to the compose schema, to the code and to each other."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.ops.compose import ROOT, Compose, stage_of
from tests.ops.deployment import APIS, MONGODS, needed

from tailrace.api.server import LEAVE_SECONDS
from tailrace.settings import Settings, variable

COMPOSE = Compose()
SERVICES = COMPOSE.services
OURS = {name: service for name, service in SERVICES.items() if "build" in service}
ONE_SHOTS = {"mongo-init", "mongosh", "archive"}
NGINX = (ROOT / "ops/nginx/nginx.conf").read_text(encoding="utf-8")
PAGE = (ROOT / "docs/deployment.md").read_text(encoding="utf-8")
NAMES = {variable(field) for field in Settings.__struct_fields__}

# The order of keys is ours; the proxy is what listens to the world; our images have a name to push them by.
LINT = dict.fromkeys(
    (
        "no-build-and-image",
        "no-unbound-port-interfaces",
        "service-keys-order",
        "services-alphabetical-order",
        "top-level-properties-order",
    ),
    0,
)


def seconds(text: str) -> float:
    number, unit = re.fullmatch(r"(\d+)(s|m|h)", text).groups()  # type: ignore[union-attr]
    return float(number) * {"s": 1, "m": 60, "h": 3_600}[unit]


def started_with(service: str) -> Settings:
    """The settings that a service gets, with its secrets' files left out."""
    given = COMPOSE.environment(service)
    return Settings.from_env({name: text for name, text in given.items() if name in NAMES})


def test_file_is_valid_by_the_compose_specification(tmp_path: Path) -> None:
    dclint = needed("dclint")
    config = tmp_path / "dclint.json"
    config.write_text(json.dumps({"rules": LINT}))
    argv = [dclint, "--config", str(config), "--max-warnings", "0", str(ROOT / "replica-set-compose.yml")]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", SERVICES)
def test_service_is_pinned_bounded_and_without_privileges(name: str) -> None:
    service = SERVICES[name]
    if name in OURS:
        assert re.fullmatch(r"tailrace-\w+:\$\{TAILRACE_VERSION:-local\}", service["image"])
    else:
        assert re.search(r":v?\d+\.\d+\.\d+(-\w+)?$", service["image"])
    user = service.get("user") or stage_of(service["build"]["target"])["USER"]
    assert int(user.partition(":")[0]) > 0
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["logging"]["options"]["max-size"]
    assert {"cpus", "memory", "pids"} <= set(service["deploy"]["resources"]["limits"])
    assert "container_name" not in service, "it could not be scaled"


@pytest.mark.parametrize("name", sorted(SERVICES.keys() - ONE_SHOTS))
def test_service_has_a_health_check(name: str) -> None:
    service = SERVICES[name]
    assert "healthcheck" in service or "HEALTHCHECK" in stage_of(service["build"]["target"])


@pytest.mark.parametrize("name", sorted(OURS.keys() - {"rq-dashboard"}))
def test_every_variable_of_our_processes_is_a_setting(name: str) -> None:
    given = set(COMPOSE.environment(name)) | set(stage_of(OURS[name]["build"]["target"])["ENV"])
    own = {name for name in given if name.startswith(("TAILRACE_", "MONGODB_", "REDIS_", "LANGFUSE_"))}
    assert {name if name in NAMES else name.removesuffix("_FILE") for name in own} <= NAMES
    assert given - own <= {"PATH", "PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE"}
    assert started_with(name).log_format == "json"


def test_archive_is_where_the_apis_look_for_it() -> None:
    given = "TAILRACE_ARCHIVE_URL"
    for name in (*APIS, "archive"):
        assert SERVICES[name]["environment"][given] == f"${{{given}:-}}"
        assert SERVICES[name]["env_file"] == SERVICES["worker"]["env_file"]  # with the store's own variables
    assert COMPOSE.command("archive") == ["tailrace", "archive"]
    assert "--extra archive" in (ROOT / "ops/Dockerfile").read_text(encoding="utf-8")


def test_both_apis_are_alike() -> None:
    one, two = ({k: v for k, v in SERVICES[name].items() if k != "networks"} for name in APIS)
    assert one == two


def test_supervisor_kills_later_than_the_process_leaves_by_itself() -> None:
    for name in APIS:
        grace = seconds(SERVICES[name]["stop_grace_period"])
        assert grace > started_with(name).drain_seconds + LEAVE_SECONDS
    assert seconds(SERVICES["worker"]["stop_grace_period"]) >= started_with("worker").handover_seconds + 10
    shutdown = re.search(r"worker_shutdown_timeout (\w+);", NGINX)
    assert shutdown
    assert seconds(SERVICES["proxy"]["stop_grace_period"]) > seconds(shutdown[1])


def test_secrets_are_all_made_once_and_read_by_any_container_user(tmp_path: Path) -> None:
    def make() -> dict[str, bytes]:
        subprocess.run([ROOT / "ops/secrets.sh", tmp_path / "secrets"], check=True, timeout=60)
        return {path.name: path.read_bytes() for path in (tmp_path / "secrets").iterdir()}

    made = make()
    assert set(made) == set(COMPOSE.secrets().values())
    assert all(made.values())
    assert make() == made
    assert stat.S_IMODE((tmp_path / "secrets").stat().st_mode) == 0o700
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "secrets").iterdir()}
    assert modes == {0o444}
    used = {name for service in SERVICES.values() for name in service.get("secrets", [])}
    assert used == set(COMPOSE.secrets())
    password = re.fullmatch(rb"redis://:(\w+)@valkey:6379/0\n", made["redis_url"])
    assert password
    assert made["valkey_conf"] == b"requirepass " + password[1] + b"\n"
    hosts = ",".join(f"{name}:27017" for name in MONGODS)
    assert f"@{hosts}/?replicaSet=rs0".encode() in made["mongodb_url"]
    assert COMPOSE.environment("mongo-init")["MONGO_MEMBERS"] == hosts


def test_secrets_named_by_a_path_are_given_to_that_service() -> None:
    for name, service in SERVICES.items():
        said = json.dumps(
            [service.get(key) for key in ("environment", "command", "healthcheck", "entrypoint")]
        )
        if name == "proxy":
            said += NGINX
        assert set(re.findall(r"/run/secrets/(\w+)", said)) <= set(service.get("secrets", [])), name


@pytest.mark.parametrize("name", SERVICES)
def test_mounted_files_exist(name: str) -> None:
    # The dashboards are made beside this file.
    for source in COMPOSE.mounted(name).values():
        assert source.exists(), source
        if source.suffix == ".sh":
            assert os.access(source, os.X_OK)


def test_nothing_but_the_proxy_is_reached_from_outside() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert set(published) == {"proxy", "grafana"}
    assert all(port.startswith("127.0.0.1:") for port in published["grafana"])
    assert COMPOSE.document["networks"]["inside"]["internal"]
    for name in (*MONGODS, "valkey", "rq-dashboard", "prometheus"):
        assert SERVICES[name]["networks"] == ["inside"]


def test_proxy_passes_requests_to_the_apis_where_they_are() -> None:
    servers = re.findall(r"server (\w+):(\d+) max_fails", NGINX)
    assert servers == [(name, COMPOSE.environment(name)["TAILRACE_PORT"]) for name in APIS]
    fixed = {f"{name}:{SERVICES[name]['networks']['front']['ipv4_address']}" for name in APIS}
    assert set(SERVICES["proxy"]["extra_hosts"]) == fixed
    listened = set(re.findall(r"listen (\d+)", NGINX))
    assert {port.rpartition(":")[2] for port in SERVICES["proxy"]["ports"]} == listened


def test_proxy_agrees_with_the_settings_of_the_apis() -> None:
    settings = started_with("api1")
    assert f"client_max_body_size {settings.max_body_bytes // 2**20}m;" in NGINX
    silence = re.search(r"proxy_read_timeout (\w+);", NGINX)
    assert silence
    assert seconds(silence[1]) > 2 * settings.keep_alive_seconds
    assert "non_idempotent" not in re.sub(r"#.*", "", NGINX)


def test_prometheus_asks_what_the_compose_file_starts() -> None:
    config = yaml.safe_load((ROOT / "ops/prometheus/prometheus.yml").read_text(encoding="utf-8"))
    jobs: dict[str, Any] = {job["job_name"]: job for job in config["scrape_configs"]}
    asked = jobs["tailrace-api"]["static_configs"][0]["targets"]
    assert asked == [f"{name}:{COMPOSE.environment(name)['TAILRACE_PORT']}" for name in APIS]
    (discovery,) = jobs["tailrace-worker"]["dns_sd_configs"]
    assert discovery["names"] == ["worker"]
    assert discovery["port"] == started_with("worker").worker_metrics_port
    for name in (*APIS, "worker"):
        assert started_with(name).host == "0.0.0.0"
        assert "inside" in SERVICES[name]["networks"]


@pytest.mark.parametrize("target", ["api", "worker", "dashboard"])
def test_image_stops_by_sigterm_without_root_and_copies_what_is_there(target: str) -> None:
    stage = stage_of(target)
    assert stage["STOPSIGNAL"] == "SIGTERM"
    assert stage["USER"] == "10001:10001"
    assert isinstance(stage["CMD"], list)
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    allowed = [line.removeprefix("!") for line in ignored if line.startswith("!")]
    for source in {*stage["COPY"], *stage_of(f"build-{target}")["COPY"]}:
        assert (ROOT / source).exists()
        assert any(source == place or source.startswith(f"{place}/") for place in allowed), source


def test_deployment_page_explains_every_variable_and_secret() -> None:
    for name in {*COMPOSE.variables(), *COMPOSE.secrets().values(), *SERVICES}:
        assert f"`{name}" in PAGE, name


def test_deployment_page_names_nothing_that_is_not_there() -> None:
    named = set(re.findall(r"\b(?:TAILRACE|MONGODB|REDIS|LANGFUSE)_[A-Z_]+\b", PAGE))
    known = NAMES | COMPOSE.variables()
    assert {name for name in named if name not in known and name.removesuffix("_FILE") not in known} == set()
    for command in re.findall(r"docker compose -f replica-set-compose.yml ([^`\n]*)", PAGE):
        words = {word.partition("=")[0] for word in command.split()}
        assert words & {*SERVICES, "ps"} or command == "up -d --build", command
    for path in re.findall(r"`((?:ops|tests|secrets)/[\w./-]+\w)`", PAGE):
        assert (ROOT / path).exists() or path.removeprefix("secrets/") in COMPOSE.secrets().values(), path
