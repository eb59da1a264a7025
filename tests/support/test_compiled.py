"The compiled epoch: what its cards try in plain Python holds in machine code, and the measured layout is kept."
import json

import pytest, torch

from backprop13.speed import FastNetwork, one_epoch, one_hot, train_fast
from backprop13.support import compiled
from backprop13.support.cards import LAYOUTS, fast_case, fast_net, fast_weights
from backprop13.support.checks import check_close
from backprop13.support.compiled import CompiledNetwork, compiled_epoch, train_compiled

pytest.importorskip('numba')


@pytest.fixture
def kept(tmp_path, monkeypatch):
    "A cache folder of its own"
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    return tmp_path/'backprop13'/'products.json'


def agree(got, want, tolerance):
    for i, (a, b) in enumerate(zip(got, want, strict=True)): check_close(a, b, f'tensor {i}', tolerance)


@pytest.mark.parametrize('dtype,tolerance', [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_machine_code_trains_as_the_fast_network(dtype, tolerance):
    "In each layout, by each library, in order and shuffled, with a short last batch"
    libraries = compiled._libraries(str(dtype)[6:])
    assert 'torch' in libraries or 'numpy' in libraries
    for sizes in (9, 4), (20, 7, 5), (20, 6, 8, 3):
        layers, x, y, _ = fast_case(sizes, 45)
        layers, x = [(w.to(dtype), b.to(dtype)) for w, b in layers], x.to(dtype)
        for order in None, torch.randperm(45, generator=torch.Generator().manual_seed(1)):
            want = FastNetwork(layers)
            one_epoch(want, x, one_hot(y, sizes[-1], dtype), 16, .1, order)()
            for name in libraries:
                for layout in LAYOUTS:
                    net = CompiledNetwork(layers)
                    how = compiled._Layout(*layout, [name]*(3*len(sizes) - 4))
                    compiled_epoch(net, x, y, 16, .1, order, how)()
                    agree(net.weights(), fast_weights(want), tolerance)


def test_it_ends_where_train_fast_ends(kept):
    x, y = fast_case((20, 7, 3), 45)[1:3]
    models = [fast_net(None, 20, 7, 3) for _ in range(2)]
    for train, model in zip((train_fast, train_compiled), models):
        train(model, x, y, 3, 16, .1, torch.Generator().manual_seed(4))
    agree(*[[p.detach() for p in model.parameters()] for model in models[::-1]], 1e-11)
    assert kept.exists()


def test_the_measured_layout_is_kept(kept, monkeypatch):
    first, asked = compiled._layout([20, 7, 3], 16, 'float64'), []
    assert first.order in 'CF' and len(first.libraries) == 5
    assert {*first.libraries} <= {*compiled._libraries('float64')}
    def again(*args):
        asked.append(args)
        return first
    monkeypatch.setattr(compiled, '_measured', again)
    assert compiled._layout([20, 7, 3], 16, 'float64') == first and not asked
    # another size, batch, or dtype is measured; so is everything where the file is damaged
    for other in ([20, 8, 3], 16, 'float64'), ([20, 7, 3], 8, 'float64'), ([20, 7, 3], 16, 'float32'):
        compiled._layout(*other)
        assert asked.pop() == other
    assert len(json.loads(kept.read_text())) == 4
    for bad in '{', '[1]', '{"another": 3}':
        kept.write_text(bad)
        assert compiled._layout([20, 7, 3], 16, 'float64') == first and asked.pop()
    # a folder that can't be written is no obstacle
    kept.unlink(); kept.mkdir()
    assert compiled._layout([20, 7, 3], 16, 'float64') == first and asked.pop()


def test_the_fastest_is_chosen(monkeypatch):
    "By times that are set here: one library is faster, and so is what BLAS writes with more columns than rows"
    monkeypatch.setattr(compiled, '_libraries', lambda dtype: {'slow': 1, 'fast': 2})
    monkeypatch.setattr(compiled, '_translated', lambda f: f)
    def time(many, row, function, before):
        m, n = (int(compiled.ctypes.c_int64.from_address(int(row[i])).value) for i in (4, 5))
        return (1 if function == 2 else 3) + (m > n)*.1
    monkeypatch.setattr(compiled, '_time', time)
    found = compiled._promising([20, 7, 3], 16, 'float64')
    assert found[0] == ('F', False, ['fast']*5) and len(found) == 6
    # whole steps decide between the promising
    for best in 0, 2, 5:
        monkeypatch.setattr(compiled, '_candidates', lambda *args: found)
        monkeypatch.setattr(compiled, 'compiled_epoch', lambda *args, layout: layout)
        monkeypatch.setattr(compiled, '_seconds', lambda how: 1 if how == found[best] else 2 + how.columns)
        assert compiled._measured([20, 7, 3], 16, 'float64') == found[best]


@pytest.mark.parametrize('threads,wanted', [(1, ['a', 'b', 'a', 'b', 'a']), (2, ['a']*5)])
def test_threads_of_two_libraries_do_not_meet(monkeypatch, threads, wanted):
    "b is faster where there are three units, a elsewhere and in sum"
    monkeypatch.setattr(compiled, '_libraries', lambda dtype: {'a': 1, 'b': 2})
    monkeypatch.setattr(compiled, '_translated', lambda f: f)
    monkeypatch.setattr(torch, 'get_num_threads', lambda: threads)
    def time(many, row, function, before):
        sizes = [compiled.ctypes.c_int64.from_address(int(row[i])).value for i in (4, 5)]
        return 1 if (3 in sizes) == (function == 2) else 2
    monkeypatch.setattr(compiled, '_time', time)
    found = compiled._candidates([20, 7, 3], 16, 'float64')
    assert sorted(found[0].libraries) == sorted(wanted)
    assert threads == 1 or len(found) == 8 and all(len({*how.libraries}) == 1 for how in found)
