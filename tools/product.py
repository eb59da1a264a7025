"""The product of matrices in the site's pages: nbs/assets/python/product.ts, which AssemblyScript's compiler, fetched
by npm, turns into WebAssembly that works in Pyodide's memory. Where that can't be had, NumPy multiplies, slower."""
import hashlib, os
from pathlib import Path

SOURCE = Path(__file__).resolve().parent.parent/'nbs/assets/python/product.ts'
TOOLS = {'assemblyscript': '0.28.20'}
FLAGS = '-O3 --noAssert --enable simd --runtime stub --importMemory'.split()


def compiled(home, node, run):
    "The file compiled from the source, beside the compiler in `home`: made once, as that takes seconds"
    sum_ = hashlib.sha256(SOURCE.read_bytes() + ' '.join(FLAGS).encode()).hexdigest()
    file = home/f'assemblyscript/product-{sum_[:12]}.wasm'
    if not file.exists():
        write(SOURCE, new := file.with_name(f'{os.getpid()}.wasm'), home, node, run)
        new.replace(file)
    return file

def write(source, file, home, node, run):
    "Compile the source into the file"
    run([node, home/'assemblyscript/bin/asc.js', source.name, *FLAGS, '-o', file],
        'compiling product.ts with AssemblyScript', cwd=source.parent)
