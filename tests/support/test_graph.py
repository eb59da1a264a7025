"""The graph of a run: every tensor once, every use an edge, every gradient autograd's; and a
picture that shows all of it."""
import re
from xml.etree import ElementTree

import pytest, torch

from backprop13.support import graph
from backprop13.backprop import Lin, Model, Module, Mse, Relu, add_grad, backward, zero_grads
from backprop13.support.card import rand
from backprop13.support.checks import check_grads
from backprop13.support.figures import COLORS
from backprop13.support.graph import Graph, draw, trace
from backprop13.training import CrossEntropy

svg = '{http://www.w3.org/2000/svg}'


class Add(Module):
    def forward(self, a, b): return a + b
    def bwd(self, out, a, b): add_grad(a, out.g); add_grad(b, out.g)

class Residual(Module):
    "A layer that holds another, and has an output of its own"
    def __init__(self, lin): self.lin = lin
    def forward(self, inp): return inp + self.lin(inp)
    def bwd(self, out, inp):
        add_grad(inp, out.g)
        add_grad(self.lin.out, out.g)
        self.lin.backward()


# ---- runs: each returns its output, the layers, and names

def network():
    net = Model(rand(5, 3, seed=1), rand(3, seed=2), rand(3, 1, seed=3), rand(1, seed=4))
    x, targ = rand(7, 5), rand(7, 1, seed=5)
    return net(x, targ), net, dict(x=x, targ=targ)

def two_heads():
    stem, a, b, loss_a, loss_b, add = Lin(rand(4, 4), rand(4)), Lin(rand(4, 3), rand(3)), Lin(rand(4, 2),
        rand(2)), Mse(), Mse(), Add()
    h = stem(rand(6, 4, seed=1))
    out = add(loss_a(a(h), rand(6, 3)), loss_b(b(h), rand(6, 2)))
    return out, dict(stem=stem, rest=[a, b, loss_a, (loss_b, add)]), dict(h=h)

def one_layer_twice():
    layer, act, loss = Lin(rand(4, 4), rand(4)), Relu(), Mse()
    return loss(layer(act(layer(rand(6, 4, seed=1)))), rand(6, 4, seed=2)), [layer, act, loss], dict(w=layer.w)

def shortcut():
    layer, block, loss = Lin(rand(4, 4), rand(4)), Residual(Lin(rand(4, 4), rand(4))), Mse()
    return loss(block(layer(rand(6, 4))), rand(6, 4)), [block, layer, loss], {}

def same_twice():
    x, add, loss = rand(3, 2), Add(), Mse()
    return loss(add(x, x), rand(3, 2)), [add, loss], dict(x=x)

runs = network, two_heads, one_layer_twice, shortcut, same_twice


def traced(run, back=True):
    out, layers, names = run()
    if back: backward(out)
    return trace(out, layers, **names)

def tensors(g): return {n.name: n.tensor for n in g.nodes if n.kind != 'call'}
def at(g, name): return [n.name for n in g.nodes].index(name)
def uses(g, name): return sum(a == at(g, name) for a, _ in g.edges)


# ---- what holds of every graph

def recomputed(g):
    "The last tensor of a graph, computed by PyTorch along the edges, and all tensors of the way, for autograd"
    ops = dict(Lin=lambda x, w, b: x @ w + b, Relu=torch.relu, Mse=lambda a, b: ((a - b)**2).mean(),
               Add=torch.add,
               Residual=lambda x, w, b: x + x @ w + b)
    value = {}
    for i, n in enumerate(g.nodes):
        given = [value[a] for a, b in g.edges if b == i]
        if n.kind == 'call': value[i] = ops[n.name](*given)
        elif given: value[i], = given
        else: value[i] = n.tensor.detach().clone().requires_grad_()
        if n.kind != 'call': value[i].retain_grad()
    return value

def check(g):
    "The edges alone give each tensor's value and, by autograd, its gradient; and each tensor is there once"
    assert len({id(n.tensor) for n in g.nodes
                if n.tensor is not None}) == len(tensors(g)), 'a tensor is there twice'
    for a, b in g.edges: assert a < b and (g.nodes[a].kind == 'call') != (g.nodes[b].kind == 'call')
    try: value = recomputed(g)
    except (TypeError, RuntimeError) as e: raise AssertionError(f'the edges are no run: {e}') from None
    for i, n in enumerate(g.nodes):
        if n.tensor is not None: assert torch.allclose(value[i], n.tensor), f'{n.name}: another value'
    value[len(g.nodes) - 1].backward()
    ours = {n.name: n.tensor.g for n in g.nodes if getattr(n.tensor, 'g', None) is not None}
    check_grads(ours, {n.name: value[i].grad for i,
                       n in enumerate(g.nodes) if n.name in ours and n.kind != 'call'})
    return ours


@pytest.mark.parametrize('run', runs)
def test_the_edges_are_the_run(run):
    g = traced(run)
    without = {n.name for n in g.nodes if n.kind != 'call'} - set(check(g))
    # only targets have no gradient
    assert all(re.match('targ', name) for name in without), without

def lost_edge(g): return g._replace(edges=[e for e in g.edges
                                           if e != (at(g, 'h'), g.edges[[a for a,
                                               _ in g.edges].index(at(g, 'h'))][1])])
def other_edge(g): return g._replace(edges=[(at(g, 'inp') if a == at(g, 'h') else a, b) for a, b in g.edges])
def drawn_twice(g):
    nodes, h = list(g.nodes), at(g, 'h')
    last = max(k for k, (a, _) in enumerate(g.edges) if a == h)
    nodes.insert(0, g.nodes[h]._replace(name='h2'))
    return Graph(nodes, [(0 if k == last else a + 1, b + 1) for k, (a, b) in enumerate(g.edges)])
def wrong_gradient(g):
    g.nodes[at(g, 'h')].tensor.g = -g.nodes[at(g, 'h')].tensor.g
    return g

@pytest.mark.parametrize('spoil', [lost_edge, other_edge, drawn_twice, wrong_gradient])
def test_a_wrong_graph_is_caught(spoil, record_property):
    record_property('mutant', 'graph')
    with pytest.raises(AssertionError): check(spoil(traced(two_heads)))


def test_a_value_used_twice_is_one_node_with_two_ways():
    g = traced(two_heads)
    assert uses(g, 'h') == 2 and [n.name for n in g.nodes].count('h') == 1
    g = traced(one_layer_twice)
    assert [uses(g, k) for k in ('w', 'b', 'inp', 'targ')] == [2, 2, 1, 1] and [n.name
        for n in g.nodes].count('Lin') == 2
    assert uses(traced(same_twice), 'x') == 2


def test_the_innermost_layer_is_the_maker():
    assert [n.name for n in traced(network).nodes if n.kind == 'call'] == ['Lin', 'Relu', 'Lin', 'Mse']
    g = traced(shortcut)
    assert [n.name for n in g.nodes if n.kind == 'call'] == ['Lin', 'Residual', 'Mse']
    assert label_of(g, 'Residual') == 'out1 (6, 4), lin.w (4, 4), lin.b (4,)'

def test_what_is_made_inside_a_layer_is_no_weight():
    class Again(Residual):
        def forward(self, inp):
            self.kept = self.lin(inp)
            return self.lin(self.lin(self.kept)) + inp
    layer = Again(Lin(rand(4, 4), rand(4)))
    assert list(tensors(trace(layer(rand(6, 4)), layer))) == ['inp', 'lin.w', 'lin.b', 'out']

def label_of(g, name): return re.search(f'^{name} takes (.*) and', graph.describe(g), re.M)[1]


def test_names_and_kinds():
    g = traced(network)
    assert list(tensors(g)) == ['x', 'w1', 'b1', 'out1', 'out2', 'w2', 'b2', 'out3', 'targ', 'loss']
    kinds = {n.name: n.kind for n in g.nodes}
    assert (kinds['x'], kinds['w2'], kinds['out3'], kinds['loss'], kinds['Mse']) == ('inputs',
        'weights', 'activations', 'loss', 'call')
    out, net, names = network()
    # a given name is never given again
    mine = trace(out, net, w1=net.layers[2].w, out2=out)
    assert list(tensors(mine)) == ['inp', 'w', 'b1', 'out1', 'out3', 'w1', 'b2', 'out4', 'targ', 'out2']
    layer, x = Lin(rand(2, 2), rand(2)), rand(1, 2)
    assert list(tensors(trace(layer(x), layer, w=x))) == ['w', 'w1', 'b', 'out']


def test_a_single_layer_and_labels():
    layer, loss = Relu(), CrossEntropy()
    g = trace(layer(torch.ones(2, 3)), layer)
    assert [tuple(n[:2]) for n in g.nodes] == [('inp', 'inputs'), ('Relu', 'call'), ('out', 'activations')]
    assert g.edges == [(0, 1), (1, 2)]
    texts = seen(draw(trace(loss(torch.ones(2, 3), torch.tensor([2, 0])), loss), values=2))
    assert '2 0' in texts and '(2,)' in texts                                   # whole numbers as such


def test_a_long_chain():
    layers, x = [Relu() for _ in range(1500)], torch.ones(1)
    for layer in layers: x = layer(x)
    g = trace(x, layers)
    assert len(g.nodes) == 3001 and len(g.edges) == 3000


# ---- the picture

def seen(picture): return [t.text for t in ElementTree.fromstring(picture).iter(f'{svg}text')]
def boxes(picture):
    for r in list(ElementTree.fromstring(picture).iter(f'{svg}rect'))[1:]:
        yield tuple(float(r.get(k)) for k in ('x', 'y', 'width', 'height'))
def dashed(picture): return picture.count('stroke-dasharray')

@pytest.mark.parametrize('run', runs)
def test_the_picture_shows_all(run):
    g = traced(run)
    picture, found = draw(g), tensors(g)
    texts = seen(picture)
    for n in g.nodes: assert n.name in texts
    assert sorted(t for t in texts if t[0] == '(') == sorted(str(tuple(t.shape)) for t in found.values()
        if t.ndim)
    lengths = [f'|g| {t.g.norm():.2g}' for t in found.values() if getattr(t, 'g', None) is not None]
    assert sorted(t for t in texts if '|g|' in t) == sorted(lengths)
    # each arrow is a line and a head
    there = picture.count('<path') // 2
    assert there - dashed(picture) == len(g.edges)
    assert dashed(picture) == sum(not g.nodes[a].name.startswith('targ') for a, _ in g.edges)
    rects = list(boxes(picture))
    width, height = map(float, re.search('viewBox="0 0 (.*?) (.*?)"', picture).groups())
    assert len(rects) == len(g.nodes)
    for i, (x, y, w, h) in enumerate(rects):
        assert x >= 0 and y >= 0 and x + w <= width and y + h <= height
        for u, v, s, t in rects[:i]:
            assert x + w <= u or u + s <= x or y + h <= v or v + t <= y, 'boxes overlap'
    assert picture == draw(traced(run)), 'not the same twice'


def test_everything_comes_after_what_it_needs():
    for run in runs:
        g = traced(run)
        row = graph._rows_of(g)
        assert all(row[a] < row[b] for a, b in g.edges)


def test_without_gradients_nothing_goes_back():
    g = traced(two_heads, back=False)
    picture = draw(g)
    assert not dashed(picture) and '|g|' not in picture and COLORS['gradients'] not in picture
    g = traced(two_heads)
    zero_grads(*tensors(g).values())
    assert draw(g) == picture                                                   # .g = None counts as none


def test_an_arrow_back_for_each_gradient_only():
    "One head has been walked back, the other not: nothing comes back from that one"
    out, layers, names = two_heads()
    _, b, _, (loss_b, add) = layers['rest']
    add.backward(); loss_b.backward(); b.backward()
    g = trace(out, layers, **names)
    back = [(g.nodes[i].name, g.nodes[j].name) for i, j in g.edges if graph._flows_back(g, i, j)]
    assert back.count(('h', 'Lin')) == 1 and not any('inp' in o for o in back)


def test_values_on_request():
    x, layer = torch.tensor([[1.5, -2., 3.]]), Relu()
    g = trace(layer(x), layer, x=x)
    assert '1.5 -2 …' in seen(draw(g, values=2)) and '1.5 -2 3' in seen(draw(g, values=3))
    assert '1.5 -2 3' not in seen(draw(g))


def test_names_are_escaped():
    class Less(Relu): pass
    Less.__name__ = 'a<b & "c"'
    layer = Less()
    x = torch.ones(2)
    picture = draw(trace(layer(x), layer, **{'</svg><script>': x}), title='1 < 2 & 3')
    root = ElementTree.fromstring(picture)
    assert '</svg><script>' in seen(picture) and 'a<b & "c"' in seen(picture) and '<script' not in picture
    assert root.find(f'{svg}title').text == '1 < 2 & 3' and 'a<b & "c" takes' in root.find(f'{svg}desc').text


def dark(rgb):
    """A colour under the site's filter for dark mode: invert(1) hue-rotate(180deg), as the
    filter's specification defines it"""
    r, g, b = (1 - o for o in rgb)
    rows = (-.574, 1.43, .144), (.426, .43, .144), (.426, 1.43, -.856)
    return [min(1, max(0, x*r + y*g + z*b)) for x, y, z in rows]

@pytest.mark.parametrize('seen_as', [list, dark])
def test_every_colour_can_be_read_on_its_box(seen_as):
    "WCAG's 4.5 to 1, for each colour on white with a little of it"
    def light(rgb): return sum(k*(c/12.92 if c <= .04045 else ((c + .055)/1.055)**2.4)
                               for k, c in zip((.2126, .7152, .0722), rgb))
    rgb = {k: [int(c[i:i+2], 16)/255 for i in (1, 3, 5)] for k, c in COLORS.items()}
    tint, = {float(o) for o in re.findall('fill-opacity="(.*?)"', draw(traced(network)))}
    for k, c in rgb.items():
        for ink in (c, rgb['gradients'], [.133]*3):
            low, high = sorted((light(seen_as([1 - tint + tint*o for o in c])), light(seen_as(ink))))
            assert (high + .05)/(low + .05) > 4.5, (k, high, low)


def test_no_edges_cross_where_none_need_to():
    "Two heads: the order in which the run meets the tensors would cross two lines"
    g = traced(two_heads)
    lines = [graph._lines_of(n, 0) for n in g.nodes]
    rows, _ = graph._items_of(g, graph._sizes(g, lines))
    def crossings():
        place = {o: i for row in rows for i, o in enumerate(row)}
        for row in rows:
            down = [(place[o], place[p]) for o in row for p, _ in o.down]
            yield sum(a < b and c > d for a, c in down for b, d in down)
    before = sum(crossings())
    graph._uncross(rows)
    assert before > 0 and sum(crossings()) == 0


# ---- what is refused

def test_a_layer_that_is_missing():
    out, net, *_ = network()
    with pytest.raises(ValueError,
                       match=r'shape \(7, 3\) was made by a layer that is not among those given; '
                             r'pass every layer'):
        trace(out, [net.loss, net.layers[2]])
    with pytest.raises(ValueError, match='not among those given'): trace(out, Relu())

def test_an_output_of_no_layer():
    out, net, *_ = network()
    with pytest.raises(ValueError,
                       match=r'no layer made the output of shape \(\); pass what a Module '
                             r'returned'): trace(out*2, net)
    with pytest.raises(ValueError, match='got no Module'): trace(out, [])
    with pytest.raises(ValueError, match='got no outputs'): trace([], net)
    with pytest.raises(TypeError, match='got float, wanted a tensor'): trace(1.5, net)

def test_a_name_for_another_tensor():
    out, net, names = network()
    with pytest.raises(ValueError, match='x is no tensor of this run; pass the very tensor'):
        trace(out, net, x=names['x'][:])

def test_a_layer_that_holds_what_came_of_it():
    layer, act = Lin(rand(3, 3), rand(3)), Relu()
    out = act(layer(rand(3, 3)))
    layer.w = out
    with pytest.raises(ValueError,
                       match='Lin holds a tensor that was made from its own output'): trace(out, [layer, act])
