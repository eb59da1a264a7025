"Packaging: every value comes from settings.ini, so that nbdev and pip agree."
import re
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_namespace_packages, setup

here = Path(__file__).parent
config = ConfigParser(delimiters=['='], interpolation=None)
config.read(here/'settings.ini', encoding='utf-8')
cfg = config['DEFAULT']
statuses = ['1 - Planning', '2 - Pre-Alpha', '3 - Alpha', '4 - Beta', '5 - Production/Stable', '6 - Mature',
            '7 - Inactive']

extras = {k.removesuffix('_requirements'): v.split() for k, v in cfg.items() if k.endswith('_requirements')}
brings = {'labs': ['figures'], 'workbook': ['figures'],   # both use the palette of the figures
          'notebook': ['labs', 'workbook'],               # what a chapter imports, wherever it runs
          'grade': ['figures'],                           # learners' notebooks may plot
          'bench': ['fast'],                              # our own contender
          'dev': ['notebook', 'grade', 'fast']}           # what a clone needs
for k, more in brings.items(): extras[k] = [*dict.fromkeys(extras[k] + [r for o in more for r in extras[o]])]
page = (here/'README.md').read_text(encoding='utf-8')
page = re.sub(r'\]\((?![a-z]+:|#)', f"]({cfg['git_url']}/blob/{cfg['branch']}/", page)   # PyPI has only the page
setup(
    name=cfg['lib_name'], version=cfg['version'], description=cfg['description'],
    long_description=page, long_description_content_type='text/markdown',
    author=cfg['author'], author_email=cfg['author_email'], url=cfg['git_url'], keywords=cfg['keywords'].split(),
    license_expression='Apache-2.0', license_files=['LICENSE'],
    classifiers=[
        f"Development Status :: {statuses[int(cfg['status'])-1]}",
        f"Intended Audience :: {cfg['audience']}",
        f"Natural Language :: {cfg['language']}",
        *(f'Programming Language :: Python :: 3.{v}' for v in range(10, 14)),
        'Topic :: Scientific/Engineering :: Artificial Intelligence'],
    packages=find_namespace_packages(include=[cfg['lib_name'], f"{cfg['lib_name']}.*"]), include_package_data=True,
    python_requires=f">={cfg['min_python']}",
    install_requires=cfg['requirements'].split(),
    extras_require=extras,
    entry_points={'console_scripts': cfg['console_scripts'].split(),
                  'nbdev': [f"{cfg['lib_name']}={cfg['lib_name']}._modidx:d"]},
    zip_safe=False)
