"The lab Broadcast: its rule is PyTorch's, its sentence the library's, its fields, buttons and keys work"
import math, random

import pytest, torch
from conftest import button, cells, in_node, press

from backprop13.matmul import broadcast_shape

META = dict(dtype=torch.float32, device='meta')                      # shapes and strides without the memory


def shapes(draw, sizes): return [draw.choice(sizes) for _ in range(draw.randint(0, 5))]


def some_pairs(n):
    "Random pairs; half of the second ones are the first without some axes and with some set to 1, so that many fit"
    draw = random.Random(1)
    for i in range(n):
        a = shapes(draw, [0, 1, 1, 2, 3, 784, 10000])
        b = shapes(draw, [0, 1, 1, 2, 3]) if i % 2 else [draw.choice([1, p, p])
                                                         for p in a[draw.randint(0, len(a)):]]
        yield [a, b] if draw.random() < .5 else [b, a]


def test_the_rule_is_pytorch_s():
    pairs, fitted, refused = list(some_pairs(600)), 0, 0
    for (a, b), got in zip(pairs, in_node('broadcast', 'broadcast', pairs)):
        columns = got['columns'][::-1]
        for k, sizes in dict(a=a, b=b).items():
            assert [c[k] for c in columns][len(columns)-len(sizes):] == sizes
        try: want = list(torch.broadcast_shapes(a, b))
        except RuntimeError:
            refused += 1
            with pytest.raises(ValueError) as e: broadcast_shape(tuple(a), tuple(b))
            assert got['shape'] is None and got['error'] == str(e.value)
            assert [c['out'] for c in columns if c['read']][0] is None     # the clash is the last axis that is read
            continue
        fitted += 1
        assert got['shape'] == want and got['error'] is None and [c['out'] for c in columns] == want
        if 0 in want: continue                                        # strides mean nothing there
        for k, t in enumerate(torch.broadcast_tensors(torch.empty(a, **META), torch.empty(b, **META))):
            repeated = [step == 0 and n != 1 for step, n in zip(t.stride(), want)]
            assert [c['repeated'][k] for c in columns] == repeated, (a, b)
    assert fitted > 100 and refused > 100 and any(0 in p[0] for p in pairs) and any([] in p for p in pairs)


def test_numbers_and_memory_are_pytorch_s():
    draw = random.Random(2)
    cases = [shapes(draw, [0, 1, 7, 784, 50000, 10**6]) for _ in range(200)]
    tensors = [torch.empty(s, **META) for s in cases if math.prod(s) < 2**60]
    got = in_node('broadcast', 'holds', [[list(t.shape)] for t in tensors])
    assert [(int(o['numbers']), int(o['bytes'])) for o in got] == [(t.numel(), t.nbytes) for t in tensors]
    sizes = [0, 4, 999, 1000, 999_499, 999_500, 31360, 400_000_000, 1_568_000_000,
             2**63-1] + [t.nbytes for t in tensors]
    said = in_node('broadcast', 'memory', [[str(n)] for n in sizes])
    unit = {u: 1000**i for i, u in enumerate(['bytes', 'kB', 'MB', 'GB', 'TB', 'PB', 'EB'])}
    for n, text in zip(sizes, said):
        value, u = text.split('\u00a0')
        assert float(value)*unit[u] == pytest.approx(n, rel=.005) and (float(value) < 1000)
        assert u == 'bytes' or float(value) >= 1
    assert said[4:9] == ['999\u00a0kB', '1\u00a0MB', '31.4\u00a0kB', '400\u00a0MB', '1.57\u00a0GB']
    assert in_node('broadcast', 'memory', [[str(2**63)]]) == ['more than PyTorch can count']
    with pytest.raises(RuntimeError): torch.empty(2**61, **META)      # 2**63 bytes


def test_shapes_are_read():
    read = {'10000, 1': [10000, 1], '(10000,1)': [10000, 1], '(10000,)': [10000], '10000': [10000],
            ' ( 3 , 4 , ) ': [3, 4], '[2, 3]': [2, 3], 'torch.Size([5, 784])': [5, 784], '()': [],
            'torch.Size([])': [], '0': [0], '10_000, 2': [10000, 2]}
    got = in_node('broadcast', 'parse', [[text] for text in read])
    assert dict(zip(read, got)) == {text: {'shape': shape} for text, shape in read.items()}


def test_what_is_no_shape_gets_a_sentence():
    why = {'': 'Type a shape', '(3, 4': 'brackets', '(3, 4]': 'brackets', '((3))': 'brackets',
           '3, , 4': 'no size before', ',': 'no size before', '-1, 3': 'negative', '2.5': 'not whole',
           '784 10': 'has a blank', '3 4 5': 'has a blank', '3x4': 'not a size', '1e3': 'not a size',
           '3 × 4': 'not a size', '9'*20: 'more than', ', '.join('1'*9): '9 axes'}
    for (text, words), got in zip(why.items(), in_node('broadcast', 'parse', [[text] for text in why])):
        assert set(got) == {'error'} and words in got['error'] and got['error'].endswith('.'), (text, got)


def test_it_answers_pointer_and_keys(open_lab):
    lab = open_lab('broadcast')
    def said(): return lab.get_by_role('status').inner_text().replace('\u00a0', ' ')
    assert said().startswith('(784, 10) and (10,) make (784, 10)')     # it opens with a pair that fits
    button(lab, '(784,) and (784, 10)')
    with pytest.raises(ValueError) as e: broadcast_shape((784,), (784, 10))
    assert said() == f'ValueError: {e.value}' and lab.get_by_text('✗ clash').count() == 1
    lab.get_by_role('button', name='a[..., None]').click()             # the pointer mends it
    assert lab.get_by_label('shape of a').input_value() == '(784, 1)'
    assert said().startswith('(784, 1) and (784, 10) make (784, 10)')
    button(lab, '(10000, 1) and (10000,)')
    t = torch.empty(torch.broadcast_shapes((10000, 1), (10000,)), **META)
    row = [c.replace('\u00a0', ' ') for c in cells(lab, 'result').all_inner_texts()[-3:]]
    assert row == [str(tuple(t.shape)), f'{t.numel():,}'.replace(',', ' '), f'{t.nbytes/1e6:.0f} MB']
    field, keys = lab.get_by_label('shape of b'), lab.page.keyboard    # keys: the same, typed
    field.focus()
    press(lab, 'ControlOrMeta+a')
    keys.type('10000, 1')
    assert '(10000, 1) make (10000, 1): 10 000 numbers, 40 kB' in said()
    press(lab, 'ControlOrMeta+a')
    keys.type('10000')
    assert lab.get_by_role('button', name='(10000, 1) and (10000,)').get_attribute('aria-pressed') == 'true'
    keys.type('x')
    assert 'is not a size' in said() and field.get_attribute('aria-invalid') == 'true'
    press(lab, 'Backspace')
    assert field.get_attribute('aria-invalid') == 'false'
