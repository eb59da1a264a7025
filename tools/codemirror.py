"""The editor of the site's pages: CodeMirror, which npm fetches, made one file of by esbuild. What of it
nbs/assets/python/editor.js needs stands in codemirror.js, beside this."""
import shutil
from pathlib import Path

MAIN = Path(__file__).with_suffix('.js')
PARTS = {'@codemirror/commands': '6.11.1', '@codemirror/lang-python': '6.2.1', '@codemirror/language': '6.13.1',
         '@codemirror/state': '6.7.6', '@codemirror/view': '6.43.15', '@lezer/common': '1.5.5',
         '@lezer/highlight': '1.2.5', '@lezer/lr': '1.4.12', '@lezer/python': '1.1.19',
         '@marijn/find-cluster-break': '1.0.4', 'crelt': '1.0.7', 'style-mod': '4.1.5', 'w3c-keyname': '2.2.8'}
TOOLS = {'esbuild': '0.28.2'}


def bundle(home, folder, node, run):
    "Fill `folder` with codemirror.js, made of the packages in `home`, and their licences"
    shutil.rmtree(folder, ignore_errors=True)
    flags = '--bundle --minify --format=esm --target=es2022 --legal-comments=none'.split()
    file = folder/MAIN.name
    run([node, home/'esbuild/bin/esbuild', MAIN, *flags, '--log-level=error', f'--outfile={file}'],
        'making one file of CodeMirror with esbuild')
    texts = {}                                      # most share one
    for name in PARTS:
        licence = (home/name/'LICENSE').read_text(encoding='utf-8').strip()
        texts[licence] = texts.get(licence, []) + [name]
    said = (f"{', '.join(names)}:\n\n{licence}\n" for licence, names in texts.items())
    (folder/'LICENSE.txt').write_text('\n'.join(said), encoding='utf-8')
