.PHONY: check test smoke notebooks bench docs

check:      ## style and types
	ruff check . && ruff format --check . && pyright

test:       ## the README's test command, without its install
	python -m pytest

smoke:      ## one experiment from end to end on the embedded digits
	python experiments/mnist_lenet.py --dataset digits --epochs 1 --out runs/smoke

notebooks:  ## execute every notebook
	python -m pytest -m '' tests/test_notebooks.py

bench:      ## every measured claim, as JSON lines; accelerator.py is for a graphics card
	for script in $(filter-out %/accelerator.py,$(wildcard benchmarks/*.py)); do python "$$script" || exit 1; done

docs:       ## the examples in docstrings and in the README
	python -m pytest jaxsnn tests/test_readme.py
