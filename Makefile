.PHONY: check test smoke notebooks bench tables docs

check:      ## style and types
	ruff check . && ruff format --check . && pyright

test:       ## the README's test command, without its install
	python -m pytest

smoke:      ## one experiment from end to end on the embedded digits
	python experiments/mnist_lenet.py --dataset digits --epochs 1 --out runs/smoke

notebooks:  ## execute every notebook
	python -m pytest -m '' tests/test_notebooks.py

bench:      ## measured claims, as JSON lines; accelerator.py is for a graphics card, recipe.py takes hours
	for script in $(filter-out %/accelerator.py %/recipe.py,$(wildcard benchmarks/*.py)); do python "$$script" || exit 1; done

tables:     ## what a command writes: tables of results, pages of the API, figures of the gallery
	python tools/results_table.py
	python tools/api_pages.py
	python tools/gallery.py

docs:       ## the site, docs/_build/html/index.html (pip install '.[docs]'); a warning ends it
	python -m sphinx --fail-on-warning --keep-going --quiet docs docs/_build/html
