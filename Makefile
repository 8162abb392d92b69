# Every target first creates the environment. It needs Python 3.11+ and network access.
PYTHON ?= python3
BIN := .venv/bin
ENV := .venv/.installed

.PHONY: help env test lint types unit cluster scale demo realdata confidence consensus student resume bench bench-peers \
  parity own-models kills ablation chaos fuzz soak volume formats train-bundled docs notebooks documented wheel licences sbom lock clean
help:  ## show the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  %-14s %s\n", $$1, $$2}'

env: $(ENV)  ## make the environment in .venv from requirements.lock

$(ENV): requirements.lock requirements-uv.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, found " + sys.version)'
	@echo "Installing the environment into .venv: about 7 GB, mostly torch, and 3 GB of downloads. Minutes."
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements-uv.txt
	@# Compiled once here: where Python may not write bytecode, every process would compile torch anew.
	$(BIN)/uv pip sync $(if $(MAKE_TERMOUT),,--quiet) --compile-bytecode --python $(BIN)/python --require-hashes requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $@

test: lint types unit  ## lint, type check and run all tests except the long ones

lint: $(ENV)  ## ruff: rules and format; the language of texts and names
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python tools/check_language.py

types: $(ENV)  ## mypy, strict
	$(BIN)/mypy

unit: $(ENV)  ## run the tests: those without Ray on all cores, then the others
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/unit tests/infra -n auto --maxprocesses 8 --dist loadfile
	$(BIN)/python -m pytest --ignore tests/unit --ignore tests/infra

cluster: $(ENV)  ## detach, join, stop and resume a submitted job (minutes)
	$(BIN)/python -m pytest -m cluster

scale: $(ENV)  ## measure the driver on 10 million rows, 1 to 8 local nodes, and the simulation
	$(BIN)/python benchmarks/scale.py driver --rows 1000000
	$(BIN)/python benchmarks/scale.py driver --rows 10000000
	$(BIN)/python benchmarks/scale.py nodes
	$(BIN)/python benchmarks/scale.py simulate

demo: $(ENV)  ## label fresh phantoms with the bundled models, score and draw them
	$(BIN)/salip-ray demo

realdata: $(ENV)  ## label and score the real images in $$SALIP_REAL_DATA (default ../shared/data)
	$(BIN)/python benchmarks/realdata.py

confidence: $(ENV)  ## measure how well confidence predicts Dice, on phantoms and real images
	$(BIN)/python benchmarks/confidence.py

consensus: $(ENV)  ## measure how well the agreement of several models ranks labels
	$(BIN)/python benchmarks/consensus.py

student: $(ENV)  ## train a small network on the cascade's labels of phantoms; does it beat its teacher?
	$(BIN)/python benchmarks/student.py

resume: $(ENV)  ## label 10,000 small images, kill -9 the job three times, count the rows
	$(BIN)/python benchmarks/resume.py

bench: $(ENV)  ## measure the speed ratios on a quiet machine (10 to 20 minutes)
	$(BIN)/python -m benchmarks.bench

bench-peers: $(ENV)  ## measure the same work with other packages, on a quiet machine (an hour)
	$(BIN)/python -m benchmarks.peers

parity: $(ENV)  ## the slow parity tests: ViT-B at its full size (minutes)
	$(BIN)/python -m pytest tests/parity -m slow

kills: $(ENV)  ## the slow tests of searches, trainings and reproductions that are killed (minutes)
	$(BIN)/python -m pytest tests/tuning tests/student tests/reproduction tests/unit/training -m slow

own-models: $(ENV)  ## the slow tests of jobs with models of other packages, or with candidates (minutes)
	$(BIN)/python -m pytest tests/pipeline/test_own_models.py tests/pipeline/test_candidates.py -m slow

ablation: $(ENV)  ## measure the recipe, its options and presence; tables into benchmarks/results/
	$(BIN)/python benchmarks/ablation.py

chaos: $(ENV)  ## kill drivers, workers, nodes and stores, mutate files, compare; resumes
	$(BIN)/python tests/chaos/run.py

fuzz: $(ENV)  ## 10,000 mutated files through every decoder
	$(BIN)/python -m pytest tests/chaos/test_fuzzing.py -m slow

soak: $(ENV)  ## ten times the images in the same memory; actors that leak are replaced
	$(BIN)/python -m pytest tests/chaos/test_soak.py -m slow -s

volume: $(ENV)  ## score volumes in 3-D, with and without consistent slices: phantoms and the real one
	$(BIN)/python -m benchmarks.volume

formats: $(ENV)  ## pydicom's own files by outcome, bombs, and a large volume through the object store
	$(BIN)/python -m benchmarks.dicom_table
	$(BIN)/python -m benchmarks.bombs
	$(BIN)/python -m benchmarks.large_volume

train-bundled: $(ENV)  ## train the bundled models again (hours; resumes)
	$(BIN)/python jobs/train_bundled.py --model sam --out training-output
	test -e training-output/crops/crops-mined.done || $(BIN)/python -m training.clip_mining \
	  --out training-output --sam training-output/sam.safetensors --count 2400
	$(BIN)/python jobs/train_bundled.py --model clip --out training-output

docs: $(ENV)  ## build the documentation site into site/
	$(BIN)/python tools/build_docs.py
	$(BIN)/zensical build --strict --clean

notebooks: $(ENV)  ## run the notebooks in docs/notebooks and store what they print
	$(BIN)/python tools/notebooks.py

documented: $(ENV)  ## the slow tests of the docs: all notebooks, and the commands of pages with jobs
	$(BIN)/python -m pytest tests/packaging/test_notebooks.py tests/packaging/test_documented_pages.py -m slow

wheel: $(ENV)  ## build the wheel into dist/
	$(BIN)/python -m build --wheel --no-isolation --outdir dist .

licences: $(ENV)  ## print the licence of every package in requirements.lock
	@$(BIN)/python tools/licences.py

sbom: $(ENV)  ## write the packages of requirements.lock and their licences to sbom.cdx.json
	$(BIN)/python tools/licences.py --write

lock: $(ENV)  ## pin the dependencies of pyproject.toml again
	$(BIN)/uv pip compile pyproject.toml --group dev --extra dicom --extra dicom-seg --universal --python-version 3.11 \
	  --generate-hashes --no-emit-index-url --no-header --quiet --output-file requirements.lock
	grep -A99 '^uv==' requirements.lock | awk 'NR==1 || /--hash/ {print} NR>1 && !/--hash/ {exit}' > requirements-uv.txt

clean:  ## remove the files of the other targets, except trained models
	rm -rf .venv dist build site ablation-output demo-output realdata-output confidence-output consensus-output student-output volume-output bench-output chaos-output .pytest_cache .mypy_cache .ruff_cache
