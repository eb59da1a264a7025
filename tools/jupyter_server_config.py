"How `make lab` saves notebooks: clean, and with the stored outputs where nothing has changed, as `make outputs` does"
import importlib.util, json
from pathlib import Path

import nbformat

spec = importlib.util.spec_from_file_location('notebooks', Path(__file__).with_name('notebooks.py'))
# tools/ stays off the path: its site.py would stand in for Python's own
notebooks = importlib.util.module_from_spec(spec)
spec.loader.exec_module(notebooks)


def save(model, path, contents_manager, **kwargs):
    "Clean the notebook that Jupyter is about to save, in place"
    if model['type'] != 'notebook' or model['content']['nbformat'] != 4: return
    nb = nbformat.reads(json.dumps(model['content']), 4)         # clients may send texts as lists of lines
    notebooks.saved(nb, Path(contents_manager.root_dir)/path.strip('/'))
    model['content'] = nb


get_config().FileContentsManager.pre_save_hook = save            # noqa: F821, Jupyter's own name
