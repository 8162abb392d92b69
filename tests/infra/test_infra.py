"""Files for clouds and clusters pass the schemas and tools of their platforms."""

from __future__ import annotations

import fnmatch
import json
import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from salip_ray import load_config
from tests.conftest import BIN, ROOT

INFRA = ROOT / "infra"
SCHEMAS = Path(os.environ.get("SALIP_KUBERAY_SCHEMAS", ROOT / ".." / "shared" / "schemas"))


# ---------------------------------------------------------------------------------- Dockerfile


def test_the_dockerfile_passes_its_linter():
    done = subprocess.run(
        [BIN / "hadolint", "--no-color", INFRA / "Dockerfile"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_linter_can_fail(tmp_path):
    (tmp_path / "Dockerfile").write_text("FROM python\nRUN cd /tmp\n")
    done = subprocess.run([BIN / "hadolint", tmp_path / "Dockerfile"], capture_output=True)
    assert done.returncode != 0


def stages() -> dict[str, list[str]]:
    """The instructions of each stage, continued lines joined."""
    text = re.sub(r"^\s*#.*\n", "", (INFRA / "Dockerfile").read_text(), flags=re.MULTILINE)
    results: dict[str, list[str]] = {}
    for line in text.replace("\\\n", " ").splitlines():
        if match := re.match(r"FROM \S+ AS (\S+)", line):
            current = results.setdefault(match.group(1), [])
        elif line.strip():
            current.append(line)
    return results


def test_no_target_runs_as_root():
    results = stages()
    assert {"cpu", "cuda"} <= set(results)
    assert "USER 1000:100" in results["cpu"]
    assert not [line for line in results["cuda"] if line.startswith("USER")]
    assert "FROM cpu AS cuda" in (INFRA / "Dockerfile").read_text()


def in_context() -> list[Path]:
    """Tracked files that ``.dockerignore`` lets through: the last pattern that matches wins."""
    patterns = [
        line
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line[:1] not in ("", "#")
    ]
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    files = []
    for name in filter(None, listed.stdout.split("\0")):
        ignored = False
        parents = [name, *(str(folder) for folder in Path(name).parents if str(folder) != ".")]
        for pattern in patterns:
            wanted, spared = pattern.removeprefix("!").replace("**/", "*"), pattern.startswith("!")
            if any(fnmatch.fnmatch(parent, wanted) for parent in parents):
                ignored = not spared
        if not ignored:
            files.append(Path(name))
    return files


def test_the_build_context_is_small_and_has_only_copied_files():
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    files = in_context()
    assert sum((ROOT / file).stat().st_size for file in files) < 25e6
    tops = {file.parts[0] for file in files}
    assert not tops & {"tests", "benchmarks", ".git", "docs"}
    copied = {
        source.removeprefix("./")
        for line in stages()["build"]
        if line.startswith("COPY")
        for source in line.split()[1:-1]
    }
    assert copied == tops


# ---------------------------------------------------------------------------------- Kubernetes


def rayjob() -> dict:
    return yaml.safe_load((INFRA / "kubernetes" / "rayjob.yaml").read_text())


def schema(kind: str) -> dict:
    path = SCHEMAS / f"ray.io_{kind}.yaml"
    if not path.is_file():
        pytest.skip(f"KubeRay's custom resource definition {path} is not at hand")
    versions = yaml.safe_load(path.read_text())["spec"]["versions"]
    results = next(item for item in versions if item["name"] == "v1")
    return closed(results["schema"]["openAPIV3Schema"])


def closed(node):
    """The schema without room for unknown fields: the API server would prune a mistyped one."""
    if isinstance(node, dict):
        node = {key: closed(value) for key, value in node.items()}
        free = node.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in node
        if isinstance(node.get("properties"), dict) and node.get("type") == "object" and not free:
            node["additionalProperties"] = False
    elif isinstance(node, list):
        node = [closed(item) for item in node]
    return node


def check(document, kind):
    import jsonschema

    rules = schema(kind)
    if not rules["properties"]["metadata"].get("properties"):
        rules["properties"]["metadata"] = {"type": "object"}
    jsonschema.Draft202012Validator(rules).validate(document)


def test_the_rayjob_passes_the_schema_of_kuberay():
    check(rayjob(), "rayjobs")


def test_a_mistyped_field_is_refused():
    import jsonschema

    job = rayjob()
    group = job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]
    group["maxReplica"] = group.pop("maxReplicas")
    with pytest.raises(jsonschema.ValidationError, match="maxReplica"):
        check(job, "rayjobs")


def test_the_rayjob_has_spot_groups_that_scale_and_an_end():
    spec = rayjob()["spec"]
    cluster = spec["rayClusterSpec"]
    assert cluster["enableInTreeAutoscaling"]
    assert spec["shutdownAfterJobFinishes"]
    assert spec["backoffLimit"] >= 1
    assert spec["activeDeadlineSeconds"] > 0
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    for group in cluster["workerGroupSpecs"]:
        assert group["minReplicas"] < group["maxReplicas"]
        pod = group["template"]["spec"]
        assert pod["nodeSelector"]
        assert pod["tolerations"]
        assert pod["securityContext"]["runAsNonRoot"]
        shm = next(item for item in pod["volumes"] if item["name"] == "shm")
        assert shm["emptyDir"]["medium"] == "Memory"


def test_the_rayjob_runs_a_command_that_exists():
    command = rayjob()["spec"]["entrypoint"].split()
    assert command[:2] == ["salip-ray", "label"]
    settings = [command[i + 1] for i, word in enumerate(command) if word == "--set"]
    config = load_config(command[command.index("--config") + 1], overrides=settings)
    pools = config.pools
    for pool in (pools.propose, pools.retrieve, pools.refine):
        assert pool.min_size == 1
        assert pool.max_size == 8
    assert sum(p.gpus for p in (pools.propose, pools.retrieve, pools.refine)) == pytest.approx(1)
    assert config.pools.wait.seconds > 0


def test_the_rayjob_has_the_ray_version_of_the_lock_file():
    pinned = re.search(r"^ray==(\S+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    assert rayjob()["spec"]["rayClusterSpec"]["rayVersion"] == pinned.group(1)


# ------------------------------------------------------------------------------------ workflows


def check_workflows(*paths: Path) -> subprocess.CompletedProcess[str]:
    command = [BIN / "check-jsonschema", "--builtin-schema", "vendor.github-workflows", *paths]
    return subprocess.run(command, capture_output=True, text=True)


def test_the_workflows_pass_their_schema():
    paths = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
    assert [path.name for path in paths] == ["release.yml", "test.yml"]
    done = check_workflows(*paths)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_mistyped_workflow_is_refused(tmp_path):
    (tmp_path / "test.yml").write_text("on: push\njobs:\n  test:\n    step: []\n")
    assert check_workflows(tmp_path / "test.yml").returncode != 0


def test_workflows_run_on_every_python_that_the_package_names():
    classifiers = (ROOT / "pyproject.toml").read_text()
    named = set(re.findall(r"Python :: (3\.\d+)", classifiers))
    for name in ("test", "release"):
        jobs = yaml.safe_load((ROOT / ".github" / "workflows" / f"{name}.yml").read_text())["jobs"]
        job = jobs["test" if name == "test" else "try"]
        assert set(job["strategy"]["matrix"]["python"]) == named


# ------------------------------------------------------------------------------------- launcher


@pytest.mark.parametrize("cloud", ["aws", "gcp"])
def test_ray_accepts_the_launcher_file(cloud):
    from ray.autoscaler._private.util import prepare_config, validate_config

    written = yaml.safe_load((INFRA / cloud / "cluster.yaml").read_text())
    config = prepare_config(written)
    validate_config(config)
    assert config["setup_commands"] == []
    assert config["available_node_types"]["head"]["resources"]["CPU"] == 0
    worker = config["available_node_types"]["gpu_spot"]
    assert worker["min_workers"] == 0
    assert "spot" in json.dumps(worker["node_config"]).lower()
    # The dashboard runs jobs for whoever reaches it, so it listens to its own machine alone.
    assert "--dashboard-host=127.0.0.1" in config["head_start_ray_commands"][-1]


def test_a_mistyped_launcher_field_is_refused():
    import jsonschema
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = yaml.safe_load((INFRA / "aws" / "cluster.yaml").read_text())
    config["idle_timeout"] = 5
    with pytest.raises(jsonschema.ValidationError, match="idle_timeout"):
        validate_config(prepare_config(config))


# ------------------------------------------------------------------------------------------ IAM

_ACTION = re.compile(r"(s3|ec2|iam):[A-Z][A-Za-z]+")


@pytest.mark.parametrize("name", ["iam-policy.json", "iam-head-policy.json"])
def test_policies_are_valid_and_have_no_wildcard_actions(name):
    policy = json.loads((INFRA / "aws" / name).read_text())
    assert set(policy) == {"Version", "Statement"}
    assert policy["Version"] == "2012-10-17"
    sids = [statement["Sid"] for statement in policy["Statement"]]
    assert len(set(sids)) == len(sids)
    for statement in policy["Statement"]:
        assert set(statement) <= {"Sid", "Effect", "Action", "Resource", "Condition"}
        assert statement["Effect"] == "Allow"
        actions = statement["Action"]
        for action in [actions] if isinstance(actions, str) else actions:
            assert _ACTION.fullmatch(action), action


def test_the_data_policy_is_limited_to_the_prefixes():
    policy = json.loads((INFRA / "aws" / "iam-policy.json").read_text())
    writes = []
    for statement in policy["Statement"]:
        actions, resource = statement["Action"], statement["Resource"]
        if actions == "s3:ListBucket":
            assert "s3:prefix" in json.dumps(statement["Condition"])
        else:
            assert re.fullmatch(r"arn:aws:s3:::[a-z-]+/[a-z]+/\*", resource)
        if "s3:PutObject" in actions:
            writes.append(resource)
        assert "s3:DeleteObject" not in actions
    assert writes == ["arn:aws:s3:::my-output/labels/*"]


# ---------------------------------------------------------------------------------------- SLURM


def test_the_slurm_script_joins_the_nodes_into_one_ray(tmp_path):
    """Run with stand-ins for what only a SLURM cluster has."""
    stubs = tmp_path / "bin"
    stubs.mkdir()
    for name, body in {
        "scontrol": "echo node-a; echo node-b",
        "srun": 'shift; exec "$@"',  # its one option, and then the step
        "ray": 'printf "%s\\n" "$@" > "$CALLED"; env > "$CALLED.env"\n'
        'cp "$RAY_AUTH_TOKEN_PATH" "$CALLED.token"',
    }.items():
        (stubs / name).write_text(f"#!/bin/bash\n{body}\n")
        (stubs / name).chmod(0o755)
    env = {
        "PATH": f"{stubs}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "CALLED": str(tmp_path / "called"),
        "SLURM_JOB_NODELIST": "node-[a-b]",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_JOB_ID": "1234567",
        "SLURM_CPUS_PER_TASK": "16",
    }
    script = INFRA / "slurm" / "label.sbatch"
    subprocess.run(
        [script, "/shared/my images", "/shared/out", "lungs", "--set", "run.rows_per_shard=64"],
        env=env,
        check=True,
        timeout=600,
    )
    called = (tmp_path / "called").read_text().splitlines()
    split = called.index("--")
    address = called[called.index("--address") + 1]
    assert called[0] == "symmetric-run"
    assert re.fullmatch(r"node-a:\d{5}", address)
    assert called[called.index("--min-nodes") + 1] == "2"
    assert called[split + 1 :] == [
        *("env", f"RAY_ADDRESS={address}", "salip-ray", "label", "/shared/my images"),
        *("/shared/out", "--config", "lungs", "--set", "run.rows_per_shard=64"),
    ]
    assert re.fullmatch(r"[0-9a-f]{64}", (tmp_path / "called.token").read_text())
    assert "RAY_AUTH_MODE=token" in (tmp_path / "called.env").read_text()
    assert not list(tmp_path.glob(".salip-ray-token*"))
    assert subprocess.run([script, "/only-one"], env=env, capture_output=True).returncode != 0


def test_the_command_in_the_slurm_script_exists():
    done = subprocess.run(
        [BIN / "ray", "symmetric-run", "--help"], capture_output=True, text=True, check=True
    )
    assert "--min-nodes" in done.stdout
    assert "RAY START OPTIONS" in done.stdout
