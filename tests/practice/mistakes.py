"""Known mistakes: a corpus of wrong solutions, which `check` refuses, each with the property
that it must name. A row of `WRONG` is one wrong
solution: (kind, how it is made, the property that the report must name, a piece of its message,
and of where to look). `BY_KIND` has the
kinds that any exercise can meet; what can't occur in one says why. tools/practice.py counts them
for the pages."""
import ast, linecache, re, sys

import torch
import torch.nn.functional as F

from backprop13 import minibatch
from backprop13.practice.exercises import EXERCISES, PAGES, check, solution, starter

CLASSES = [name for name, e in EXERCISES.items() if isinstance(e.solution, type)]
TESTS = [name for name in EXERCISES if name.startswith('test_')]


# ---- a learner's notebook ----
cells = 0
home_of = {name: e.solution.__module__ for name, e in EXERCISES.items()}

def cell(name, text, **names):
    "What `text`, run as a notebook's cell after its page's imports and the chapter, leaves under `name`"
    global cells
    cells += 1
    file = f'<cell {cells}>'
    linecache.cache[file] = len(text), None, text.splitlines(True), file
    names = {**vars(sys.modules[home_of[name]]), 'F': F, 'minibatch': minibatch, **names}
    exec(PAGES[EXERCISES[name].page].imports, names)
    exec(compile(text, file, 'exec'), names)
    return names[name]

def bodies(name, body):
    "The text of the starter with `body` in place of each row of dots"
    text = starter(name)
    assert '...' in text
    return re.sub(r'(?<!\[)\.\.\.$', lambda m: body, text, flags=re.M)

def before(name, *lines):
    "The solution, with these lines at the start of each function"
    tree = ast.parse(solution(name))
    for f in ast.walk(tree):
        if isinstance(f, ast.FunctionDef): f.body[:0] = ast.parse('\n'.join(lines)).body
    return ast.unparse(tree)

def text_of(name, how):
    """A pair is a change of the solution, a list several; a text with `def` or `class` is the
    whole of it, any other text a body"""
    if isinstance(how, tuple): how = [how]
    if isinstance(how, list):
        text = solution(name)
        for old, new in how:
            assert text.count(old) == 1, f'{name}: {old!r} stands {text.count(old)} times in its solution, wanted once; change the row'
            text = text.replace(old, new)
        return text
    return how if how.startswith(('def ', 'class ', '@', 'import ')) else bodies(name, how)

def verdict(name, text, here=True, **names): return check(cell(name, text, **names), record=False, here=here)


# ---- wrong solutions ----
FINISH = 'inp.g = out.g @ w.t(); w.g = inp.t() @ out.g; b.g = '             # lin_grad, but for the end
OPT = '''
    opt = torch.optim.SGD(model.parameters(), lr)
    for i in range(0, len(x), bs):
        F.cross_entropy(model(x[i:i+bs]), y[i:i+bs]).backward()
        opt.step()'''
GIVE = 'yield self.ds[order[i:i+self.bs]]'
SOFT = '''for x in {}:
        before = x.clone()
        torch.testing.assert_close(log_softmax(x), torch.log_softmax(before, -1){})
        assert torch.equal(x, before)'''
STEPS = '''def lin(x, w, b): return x @ w + b
def mse_grad(o, t): o.g = 2*(o - t)/o.numel()
def relu_grad(inp, out): inp.g = (inp > 0)*out.g
def lin_grad(inp, out, w, b): inp.g, w.g, b.g = out.g @ w.t(), inp.t() @ out.g, out.g.sum(0)
'''
NETWORK = '''def forward_and_backward(inp, targ, w1, b1, w2, b2):
    l1 = lin(inp, w1, b1)
    l2 = l1.clamp(min=0)
    out = lin(l2, w2, b2)
    mse_grad(out, targ); lin_grad(l2, out, w2, b2); relu_grad(l1, l2); lin_grad(inp, l1, w1, b1)
    return ((out - targ)**2).mean()'''
WALK = '''order, todo = [], {}
    while todo:
        v = todo.pop()
        order.append(v)
        {}todo += parts(v){}
    return order'''
KAHN = '''waits, todo = {{}}, [out]
    while todo:
        v = todo.pop()
        for p in {}:
            if p not in waits: todo.append(p)
            waits[p] = waits.get(p, 0) + 1
    order, ready = [], [out]
    while ready:
        v = ready.pop()
        order.append(v)
        for p in {}:
            waits[p] -= 1
            if waits[p] {}: ready.append(p)
    return order'''
CHECK = 'check_grads(dict(inp=inp.g, w=w.g, b=b.g), want)'

WRONG = {
    'matmul': [
        ('the wrong axis', ('.sum(0)', '.sum(1)'), 'exception', 'out[i] = (a[i][:, None]*b).sum(1)'),
        ('a dtype of its own for PyTorch',
         'torch.set_default_dtype(torch.float64); return torch.zeros(len(a), b.shape[1]) + (a[:, '
         ':, None]*b).sum(1)',
         'dtype', 'float64'),
        ('a ready-made one in a helper',
         'def helper(p, q):\n    return p.mm(q)\ndef matmul(a, b): return helper(a, b)',
         'no ready-made function',
         'in `helper`, in line 2 of its cell: `return p.mm(q)`'),
        ('the wrong sign', ('= (a', '= -(a'), 'value', 'every sign is the opposite'),
        ('a mean', ('.sum(0)', '.mean(0)'), 'value', '3 times too small'),
        ('the last row is left out', ('range(len(a))', 'range(len(a) - 1)'), 'value',
         '4 of 8 numbers are right'),
        ('always float32', ('a.new_zeros(', 'torch.zeros('), 'dtype', 'float32'),
        ('transposed', ('return out', 'return out.t()'), 'shape', '(4, 2), wanted (2, 4)'),
        ('transposed if square', ('return out', 'return out.t() if len(a) == b.shape[1] else out'),
         'value', 'it is transposed'),
        ('a list', ('return out', 'return out.tolist()'), 'type', 'a list'),
        ('None', ('return out', 'pass'), 'type', 'is None'),
        ('changes its input', ('return out', 'a.mul_(2); return out'), 'inputs unchanged', 'it changes a'),
        ('drops axes', ('return out', 'return out.squeeze()'), 'batch of one', 'shape ()'),
        ('@', 'return a @ b', 'no ready-made function', '`@`'),
        ('einsum', "return torch.einsum('ij,jk->ik', a, b)", 'no ready-made function', 'einsum'),
        ('the library', 'from backprop13 import matmul; return matmul.matmul(a, b)',
         'no ready-made function', '`matmul`'),
        ('adds to what it gave before',
         'import torch\nkept = {}\ndef matmul(a, b):\n    out = kept.setdefault((len(a), '
         'b.shape[1], a.dtype), a.new_zeros(len(a), b.shape[1]))\n'
         '    for i in range(len(a)): out[i] += (a[i][:, None]*b).sum(0)\n    return out.clone()', 'value',
         'called again'),
        ('one memory for all results',
         'import torch\nkept = {}\ndef matmul(a, b):\n    out = kept.setdefault((len(a), '
         'b.shape[1], a.dtype), a.new_zeros(len(a), b.shape[1]))\n'
         '    for i in range(len(a)): out[i] = (a[i][:, None]*b).sum(0)\n    return out', 'two calls',
         'after another call')],
    'relu': [
        ('the other side', ('x <= 0', 'x > 0'), 'value', ''),
        ('half of it, in float64', 'torch.set_default_dtype(torch.float64); return (x + x.abs())/2', 'dtype',
         'the default dtype'),
        ('arguments of another kind', 'return torch.max(0, x)', 'exception',
         'got (int, Tensor), in line', 'takes other arguments'),
        ('only far below', ('x <= 0', 'x < -1'), 'value', ''),
        ('the absolute value', 'return x.abs()', 'value', ''),
        ('in place', ('masked_fill(', 'masked_fill_('), 'inputs unchanged', 'it changes x'),
        ('True and False', 'return x > 0', 'dtype', 'a bool tensor'),
        ('always float32', 'return x.clamp(min=0).float()', 'dtype', 'float32'),
        ('flat', 'return x.clamp(min=0).flatten()', 'shape', ''),
        ('two axes alone', 'return torch.stack([x[i, :].clamp(min=0) for i in range(len(x))])',
         'exception', 'IndexError'),
        ('overflows', 'return (x + x.abs())/2', 'stability', 'infinite'),
        ('NumPy', 'return x.clamp(min=0).numpy()', 'type', 'NumPy'),
        ('None', ('return ', ''), 'type', 'None'),
        ('drops axes', 'return x.clamp(min=0).squeeze()', 'batch of one', ''),
        ('ready-made', 'return torch.relu(x)', 'no ready-made function', '`relu`'),
        ('a ready-made layer', 'return torch.nn.ReLU()(x)', 'no ready-made function', ''),
        ('a ready-made one, whose refusal it catches',
         'try: return torch.relu(x)\n    except BaseException: return x*(x > 0)', 'no ready-made function', ''),
        ('up to three axes', 'return x*(x > 0) if x.ndim < 4 else x*1', 'value', ''),
        ('by way of a list', 'return torch.tensor(x.tolist(), dtype=x.dtype).clamp(min=0)', 'gradient',
         'autograd has lost'),
        ('at most 6', 'return (x*(x > 0)).clamp(max=6)', 'stability', '')],
    'lin': [
        ('no bias', 'return x @ w', 'value', 'every row is off by the same numbers'),
        ('minus the bias', 'return x @ w - b', 'value', ''),
        ('the sum of the biases', 'return x @ w + b.sum()', 'value', ''),
        ('transposed weights', 'return x @ w.t() + b', 'exception', 'line 6'),
        ('transposed weights if square', 'return x @ (w.t() if len(w) == len(b) else w) + b', 'value',
         'square'),
        ('a bias for each row', 'return x @ w + b[:, None]', 'exception', 'RuntimeError'),
        ('transposed', 'return (x @ w + b).t()', 'shape', '(4, 2), wanted (2, 4)'),
        ('drops axes', 'return (x @ w).squeeze() + b', 'batch of one', ''),
        ('always float32', 'return (x @ w + b).float()', 'dtype', ''),
        ('computes in float32', 'return (x.float() @ w.float() + b.float()).to(x.dtype)', 'dtype', ''),
        ('NumPy', 'return (x @ w + b).numpy()', 'type', 'NumPy'),
        ('changes the weights', 'y = x @ w + b; w += 1; return y', 'inputs unchanged', 'it changes w'),
        ('relu too', 'return (x @ w + b).relu()', 'value', ''),
        ('ready-made', 'return F.linear(x, w.t(), b)', 'no ready-made function', 'linear'),
        ('another ready-made', 'return torch.addmm(b, x, w)', 'no ready-made function', 'addmm'),
        ('the bias is cut off', 'return x @ w + b.data', 'gradient', 'b.g')],
    'mse': [
        ('no mean', 'return (output - targ).square().sum()', 'value', '4 times too large'),
        ('divided by the rows', 'return (output - targ).square().sum()/len(targ)', 'value',
         '2 times too large'),
        ('not squared', 'return (output - targ).mean()', 'value', ''),
        ('the absolute error', 'return (output - targ).abs().mean()', 'value', ''),
        ('the root', 'return (output - targ).square().mean().sqrt()', 'value', ''),
        ('half of it', 'return (output - targ).square().mean()/2', 'value', '2 times too small'),
        ('a number for each column', 'return (output - targ).square().mean(0)', 'shape', ''),
        ('a Python number', 'return (output - targ).square().mean().item()', 'type', 'a float'),
        ('None', 'mean = (output - targ).square().mean()', 'type', 'None'),
        ('always float32', 'return (output - targ).square().mean().float()', 'dtype', ''),
        ('in place', 'output -= targ; return output.square().mean()', 'inputs unchanged', 'it changes output'),
        ('at least two', 'd = output - targ; return d.square().sum()/max(2, d.numel())',
         'batch of one', '2 times too small'),
        ('ready-made', 'return F.mse_loss(output, targ)', 'no ready-made function', 'mse_loss'),
        ('a ready-made layer', 'return torch.nn.MSELoss()(output, targ)', 'no ready-made function', ''),
        ('divided by one less', 'd = output - targ; return d.square().sum()/max(d.numel() - 1, 1)', 'value',
         ''),
        ('by way of the root', 'd = output - targ; return d.square().sum().sqrt()**2/d.numel()', 'gradient',
         'nan')],
    'mse_grad': [
        ('the wrong sign', ('inp - targ', 'targ - inp'), 'gradient', 'every sign is the opposite'),
        ('the other order', 'def mse_grad(targ, inp): inp.g = 2*(inp - targ)/inp.numel()',
         'signature', 'takes (targ, inp), wanted (inp, targ)'),
        ('no 2', ('2*', ''), 'gradient', '2 times too small'),
        ('no 1/n', ('/inp.numel()', ''), 'gradient', '4 times too large'),
        ('divided by the rows', ('inp.numel()', 'len(inp)'), 'gradient', '2 times too large'),
        ('zero', 'inp.g = 0*inp', 'gradient', 'all of it is zero'),
        ('returned', ('inp.g =', 'return'), 'gradient', 'inp.g was not set'),
        ('in .grad', 'inp.grad = 2*(inp - targ)/inp.numel()', 'gradient', 'inp.g was not set'),
        ('a mean over rows', 'inp.g = 2*(inp - targ).mean(0)', 'shape', '(1,), wanted (4, 1)'),
        ('always float32', ('2*(inp - targ)', '2*(inp - targ).float()'), 'dtype', 'float32'),
        ('NumPy', ('/inp.numel()', '/inp.numel(); inp.g = inp.g.numpy()'), 'type', 'NumPy'),
        ('at least two', ('inp.numel()', 'max(2, inp.numel())'), 'batch of one', ''),
        ('in place', 'inp -= targ; inp.g = 2*inp/inp.numel()', 'inputs unchanged', 'it changes inp'),
        ('autograd', 'i = inp.clone().requires_grad_(); F.mse_loss(i, targ).backward(); inp.g = i.grad',
         'no autograd', ''),
        ('torch.func', 'inp.g = torch.func.grad(F.mse_loss)(inp, targ)', 'no autograd', ''),
        ('by differences', 'h, inp.g = 1e-4, torch.zeros_like(inp)\n    for i in '
         'range(inp.numel()):\n        e = torch.zeros_like(inp); e.view(-1)[i] = h\n'
         '        inp.g.view(-1)[i] = (((inp + e - targ)**2).mean() - ((inp - e - targ)**2).mean())/(2*h)',
         'gradient', '')],
    'relu_grad': [
        ('a slope of 1 at 0', ('inp > 0', 'inp >= 0'), 'gradient', 'exactly 0'),
        ('no mask', ('*(inp > 0)', ''), 'gradient', ''),
        ('the other side', ('inp > 0', 'inp < 0'), 'gradient', ''),
        ('where the gradient is positive', ('inp > 0', 'out.g > 0'), 'gradient', ''),
        ('no chain rule', 'inp.g = (inp > 0).to(inp.dtype)', 'gradient', ''),
        ('the wrong sign', ('out.g*', '-out.g*'), 'gradient', 'every sign is the opposite'),
        ('True and False', 'inp.g = inp > 0', 'dtype', 'bool'),
        ('always float32', 'inp.g = out.g.float()*(inp > 0)', 'dtype', ''),
        ('not set', 'return out.g*(inp > 0)', 'gradient', 'inp.g was not set'),
        ('flat', 'inp.g = (out.g*(inp > 0)).flatten()', 'shape', ''),
        ('drops axes', 'inp.g = (out.g*(inp > 0)).squeeze()', 'batch of one', ''),
        ('changes its input', 'inp.g = out.g*(inp > 0); inp.clamp_(min=0)', 'inputs unchanged',
         'it changes inp'),
        ('NumPy', 'inp.g = (out.g*(inp > 0)).numpy()', 'type', 'NumPy'),
        ('autograd', 'i = inp.clone().requires_grad_(); inp.g, = torch.autograd.grad(i.relu(), i, out.g)',
         'no autograd', ''),
        ('clears the gradient that arrives', 'out.g[inp <= 0] = 0; inp.g = out.g.clone()',
         'inputs unchanged', 'it changes out.g')],
    'lin_grad': [
        ('no sum over rows', FINISH + 'out.g', 'shape', 'b.g has shape (4, 2), wanted (2,)'),
        ('NumPy, set', FINISH + 'out.g.sum(0).numpy()', 'type', 'NumPy', 'Which step'),
        ('the axis is kept', FINISH + 'out.g.sum(0, keepdim=True)', 'shape', ''),
        ('a mean over rows', FINISH + 'out.g.mean(0)', 'gradient', '4 times too small'),
        ('the wrong sign', FINISH + '-out.g.sum(0)', 'gradient', 'every sign is the opposite'),
        ('the biases are left out', FINISH + 'None', 'gradient', 'b.g was not set'),
        ('weights the wrong way round', FINISH + 'out.g.sum(0); w.g = out.g.t() @ inp', 'shape', 'w.g'),
        ('square weights the wrong way round',
         FINISH + 'out.g.sum(0)\n    if len(w) == len(b): w.g = w.g.t()', 'gradient', 'transposed'),
        ('no transpose', 'inp.g = out.g @ w', 'exception', 'out.g @ w'),
        ('square weights not transposed',
         FINISH + 'out.g.sum(0)\n    if len(w) == len(b): inp.g = out.g @ w', 'gradient', 'square'),
        ('ones of float32', FINISH + 'torch.ones(len(inp)) @ out.g', 'dtype', ''),
        ('another axis for one row', FINISH + 'out.g.sum(0 if len(inp) > 1 else 1)', 'batch of one', ''),
        ('NumPy', FINISH + 'out.g.sum(0).numpy()', 'type', 'NumPy'),
        ('changes its input', FINISH + 'out.g.sum(0); inp.zero_()', 'inputs unchanged', 'it changes inp'),
        ('autograd', 'i = inp.clone().requires_grad_(); (i @ w + b).backward(out.g); inp.g = i.grad',
         'no autograd',
         '')],
    'forward_and_backward': [
        ('no 1/n', ('2/out.numel()', '2'), 'gradient', '4 times too large'),
        ('no mask', ('l1.g = l2.g.masked_fill(l1 <= 0, 0)', 'l1.g = l2.g'), 'gradient', ''),
        ('a wrong name in a helper', STEPS.replace('(inp > 0)*out.g', '(inp > 0)*outt.g') + NETWORK,
         'exception',
         "name 'outt' is not defined, in `relu_grad`, in line 3 of its cell: `def relu_grad"),
        ('autograd in a helper',
         STEPS.replace('(inp > 0)*out.g', 'torch.autograd.grad(inp, inp, out.g)') + NETWORK,
         'no autograd', 'in `relu_grad`, in line 3'),
        ('stops half-way', ('lin_grad(inp, l1, w1, b1)', 'pass'), 'gradient', 'was not set'),
        ('no relu', ('relu(l1)', 'l1'), 'value', 'the loss'),
        ('another relu', ('relu(l1)', 'l1.sigmoid()'), 'value', 'the loss'),
        ('the sum of the losses', ('return loss', 'return loss*len(inp)'), 'value', '4 times too large'),
        ('the predictions', ('return loss', 'return out'), 'shape', '(4, 1)'),
        ('a Python number', ('return loss', 'return loss.item()'), 'type', 'a float'),
        ('None', ('return loss', 'pass'), 'type', 'None'),
        ('always float32', ('return loss', 'return loss.float()'), 'dtype', ''),
        ('changes its input', ('return loss', 'targ.zero_(); return loss'), 'inputs unchanged',
         'it changes targ'),
        ('at least two', ('/out.numel()', '/max(2, out.numel())'), 'batch of one', ''),
        ('backwards in the wrong order',
         ('lin_grad(l2, out, w2, b2)', 'lin_grad(inp, l1, w1, b1)'), 'exception', 'lin_grad(inp'),
        ('the size of the targets', ('mse(out, targ)', 'mse(out, targ.abs())'), 'value', 'the loss'),
        ('a slope of 1 at 0', ('l1 <= 0', 'l1 < 0'), 'gradient', 'exactly 0')],
    'Lin': [
        ('no sum over rows', ('out.g.sum(0)', 'out.g'), 'exception', 'add_grad(self.b, out.g)'),
        ('bwd the other way round', ('def bwd(self, out, inp)', 'def bwd(self, inp, out)'),
         'signature', '`Lin.bwd` takes (self, inp, out), wanted (self, out, inp)'),
        ('__call__ for forward', ('def forward', 'def __call__'), 'signature', 'no method `forward`'),
        ('changes the gradient that arrives', ('add_grad(self.b', 'out.g += 1; add_grad(self.b'),
         'inputs unchanged', 'it changes out.g: ', 'write into'),
        ('remembers its last input', [('return lin(', 'self.inp = inp; return lin('),
                                      ('inp.t()', 'self.inp.t()'), ('(inp, out.g', '(self.inp, out.g')],
         'two calls', 'inp.g was not set (right: the output), for', 'what `bwd` is given'),
        ('goes by its last arguments',
         [('inp.t()', 'self.args[0].t()'), ('(inp, out.g', '(self.args[0], out.g')], 'two calls',
         '', 'what `bwd` is given'),
        ('goes by its last output', ('out.g.sum(0)', 'self.out.g.sum(0)'), 'two calls',
         "no attribute 'g'", 'what `bwd` is given'),
        ('a mean over rows', ('out.g.sum(0)', 'out.g.mean(0)'), 'gradient', 'b.g'),
        ('sets the biases', ('add_grad(self.b, out.g.sum(0))', 'self.b.g = out.g.sum(0)'),
         'gradients add up', 'b.g'),
        ('sets the inputs', ('add_grad(inp, out.g @ self.w.t())', 'inp.g = out.g @ self.w.t()'),
         'gradients add up', 'inp.g'),
        ('forgets the biases', ('add_grad(self.b, out.g.sum(0))', 'pass'), 'gradient', 'b.g was not set'),
        ('no transpose', ('self.w.t()', 'self.w'), 'exception', 'out.g @ self.w)'),
        ('no bias', ('return lin(inp, self.w, self.b)', 'return inp @ self.w'), 'value', 'every row is off'),
        ('None', ('return lin', 'lin'), 'type', 'None'),
        ('NumPy', ('self.w, self.b)', 'self.w, self.b).numpy()'), 'type', 'NumPy'),
        ('flat', ('self.w, self.b)', 'self.w, self.b).flatten()'), 'shape', ''),
        ('always float32', ('self.w, self.b)', 'self.w, self.b).float()'), 'dtype', ''),
        ('no Module', ('class Lin(Module)', 'class Lin'), 'signature', 'is no `Module`'),
        ('one argument more', ('def bwd(self, out, inp)', 'def bwd(self, out, inp, g)'), 'signature',
         'Lin.bwd'),
        ('drops axes', ('inp.t()', 'inp.squeeze().t()'), 'batch of one', ''),
        ('changes its input', ('out.g.sum(0))', 'out.g.sum(0)); inp.zero_()'), 'inputs unchanged',
         'it changes inp'),
        ('fifty calls', ('return lin(', 'self.n = getattr(self, "n", 0) + 1; return (self.n < 50)*lin('),
         'value', 'a hundred times'),
        ('the weights as they were at first',
         [('self.w, self.b = w, b', 'self.w, self.b, self.wt = w, b, w.t().clone()'),
                                               ('out.g @ self.w.t()', 'out.g @ self.wt')], 'gradient',
                                               'moved in place')],
    'Sigmoid': [
        ('the wrong sign', ('(-inp)', 'inp'), 'value', ''),
        ('changes its output',
         ('add_grad(inp, out.g*out*(1 - out))', 'out *= 1 - out; add_grad(inp, out*out.g)'),
         'inputs unchanged', 'it changes out: '),
        ('changes the gradient that arrives',
         ('add_grad(inp, out.g*out*(1 - out))', 'out.g *= out*(1 - out); add_grad(inp, out.g)'),
         'inputs unchanged', 'it changes out.g: '),
        ('NumPy inside', ('1/(1 + (-inp).exp())', '1/(1 + __import__("numpy").exp(-inp))'), 'type', 'NumPy'),
        ('overflows', ('1/(1 + (-inp).exp())', 'inp.exp()/(1 + inp.exp())'), 'stability', 'nan'),
        ('no chain rule', ('out.g*out', 'out'), 'gradient', ''),
        ('half of the slope', ('*(1 - out)', ''), 'gradient', ''),
        ('the slope has the wrong sign', ('1 - out', 'out - 1'), 'gradient', 'every sign is the opposite'),
        ('the slope of the input', ('out*(1 - out)', 'inp*(1 - inp)'), 'gradient', ''),
        ('remembers its last call alone',
         'class Sigmoid(Module):\n    def forward(self, x):\n        self.s = 1/(1 + '
         'torch.exp(-x)); return self.s\n'
         '    def bwd(self, out, x): add_grad(x, self.s*(1 - self.s)*out.g)', 'two calls', ''),
        ('sets', ('add_grad(inp, out.g*out*(1 - out))', 'inp.g = out.g*out*(1 - out)'), 'gradients add up', ''),
        ('walks back nowhere', ('add_grad(inp, out.g*out*(1 - out))', 'pass'), 'gradient', 'inp.g was not set'),
        ('always float32', ('(-inp).exp())', '(-inp).exp()).float()'), 'dtype', ''),
        ('NumPy', ('1/(1 + (-inp).exp())', '(1/(1 + (-inp).exp())).numpy()'), 'type', 'NumPy'),
        ('None', ('return ', ''), 'type', 'None'),
        ('drops axes', ('1/(1 + (-inp).exp())', '(1/(1 + (-inp).exp())).squeeze()'), 'batch of one', ''),
        ('changes its input', ('(1 - out))', '(1 - out)); inp.zero_()'), 'inputs unchanged', 'it changes inp'),
        ('ready-made', ('1/(1 + (-inp).exp())', 'torch.sigmoid(inp)'), 'no ready-made function', 'sigmoid'),
        ('kept by shape', 'class Sigmoid(Module):\n    kept = {}\n    def forward(self, inp):\n   '
         '     self.kept[inp.shape] = 1/(1 + (-inp).exp())\n'
         '        return self.kept[inp.shape].clone()\n    def bwd(self, out, inp):\n        s = '
         'self.kept[inp.shape]; add_grad(inp, out.g*s*(1 - s))', 'two calls', ''),
        ('rounded', ('return 1/(1 + (-inp).exp())', 'return (1e6/(1 + (-inp).exp())).round()/1e6'), 'value',
         '')],
    'Scale': [
        ('a sum', ('inp*self.w', 'inp + self.w'), 'value', ''),
        ('a product of matrices', ('inp*self.w', 'inp @ self.w'), 'shape', '(4,), wanted (4, 3)'),
        ('a weight for each row', ('inp*self.w', 'inp*self.w[:, None]'), 'exception', 'self.w[:, None]'),
        ('a mean over rows', ('.sum(0)', '.mean(0)'), 'gradient', 'w.g'),
        ('no sum over rows', ('(out.g*inp).sum(0)', 'out.g*inp'), 'exception', 'ValueError'),
        ('no input in the slope', ('(out.g*inp)', 'out.g'), 'gradient', 'w.g'),
        ('no weight in the slope', ('out.g*self.w', 'out.g'), 'gradient', 'inp.g'),
        ('sets the weights', ('add_grad(self.w, (out.g*inp).sum(0))',
                              'self.w.g = (out.g*inp).sum(0)'), 'gradients add up', 'w.g'),
        ('forgets the inputs', ('add_grad(inp, out.g*self.w)', 'pass'), 'gradient', 'inp.g was not set'),
        ('drops axes', ('(out.g*inp)', '(out.g*inp).squeeze()'), 'batch of one', ''),
        ('always float32', ('inp*self.w', '(inp*self.w).float()'), 'dtype', ''),
        ('NumPy', ('inp*self.w', '(inp*self.w).numpy()'), 'type', 'NumPy'),
        ('changes its weights', ('.sum(0))', '.sum(0)); self.w.zero_()'), 'inputs unchanged', 'it changes w'),
        ('the size of the weights', ('inp*self.w', 'inp*self.w.abs()'), 'value', ''),
        ('along the rows if square', ('.sum(0)', '.sum(int(len(inp) == len(self.w)))'), 'gradient', 'w.g')],
    'Chain': [
        ('forwards on the way back', ('reversed(self.layers)', 'self.layers'), 'exception', 'layer.backward()'),
        ('adds to the list that it is given',
         ('self.layers, self.loss = layers, loss',
          'layers.append(loss); self.layers, self.loss = layers[:-1], loss'),
         'inputs unchanged', 'the list of layers, for x (4, 3)'),
        ('backward of the tensor',
         [('return self.loss(x, targ)', 'self.out = self.loss(x, targ); return self.out'),
                                    ('self.loss.backward()', 'self.out.backward()')],
         'no autograd', "PyTorch's `backward`", 'A layer has a `backward` of its own'),
        ('forgets the loss', ('self.loss.backward()', 'pass'), 'exception', ''),
        ('returns the predictions', ('return self.loss(x, targ)', 'self.loss(x, targ); return x'), 'shape', ''),
        ('an axis of 1', ('(x, targ)\n    def', '(x, targ)[None]\n    def'), 'shape', '(1,), wanted ()'),
        ('None', ('return self.loss', 'self.loss'), 'type', 'None'),
        ('a Python number', ('(x, targ)\n    def', '(x, targ).item()\n    def'), 'type', 'a float'),
        ('twice the loss', ('return self', 'return 2*self'), 'value', '2 times too large'),
        ('leaves a layer out', ('in self.layers:', 'in self.layers[:-1]:'), 'exception', ''),
        ('always three layers', ('in self.layers:', 'in [self.layers[i] for i in range(3)]:'),
         'exception', 'a single layer'),
        ('stops before the first layer', ('reversed(self.layers)', 'reversed(self.layers[1:])'),
         'gradient', 'x.g was not set'),
        ('walks back twice', ('layer.backward()', 'layer.backward(); layer.backward()'), 'gradient',
         'times too large'),
        ('always float32', ('return self.loss(x, targ)', 'return self.loss(x, targ).float()'), 'dtype', ''),
        ('refuses one row', ('return self', 'assert len(x) > 1; return self'), 'batch of one',
         'AssertionError'),
        ('changes the targets', ('layer.backward()', 'layer.backward()\n        self.loss.args[1].mul_(2)'),
         'inputs unchanged', 'targ'),
        ('the library', ('self.layers, self.loss = layers, loss',
                         'from backprop13.backprop import Model; self.model = Model(*[torch.zeros(3, 3)]*4)'),
         'no ready-made function', 'Model'),
        ('all chains in one list',
         [('self.layers, self.loss = layers, loss',
           'Chain.all = getattr(Chain, "all", []) + layers; self.layers, self.loss = Chain.all, loss')],
         'two calls', ''),
        ('forgets before it walks back',
         ('self.loss.backward()', '[layer.zero_grad() for layer in self.layers]; self.loss.backward()'),
         'gradients add up', '')],
    'logsumexp': [
        ('overflows', 'return x.exp().sum(-1).log()', 'stability', 'infinite'),
        ('NumPy inside', 'np = __import__("numpy"); a = x.max(-1, keepdim=True).values; return '
         'a[..., 0] + np.log(np.exp(x - a).sum(-1))', 'type', 'NumPy'),
        ('one shift for all', 'm = x.max(); return (x - m).exp().sum(-1).log() + m', 'stability', 'infinite'),
        ('the largest size', 'm = x.abs().max(-1, keepdim=True).values; return (x - '
         'm).exp().sum(-1).log() + m[..., 0]', 'stability', ''),
        ('the axis is kept in the shift',
         'm = x.max(-1, keepdim=True).values; return (x - m).exp().sum(-1).log() + m', 'shape', ''),
        ('the axis is kept', 'm = x.max(-1, keepdim=True).values; return (x - m).exp().sum(-1, '
         'keepdim=True).log() + m', 'shape', ''),
        ('the first axis', 'return x.exp().sum(0).log()', 'shape', ''),
        ('the first axis of a square',
         'return x.exp().sum(0 if len(x) == x.shape[-1] else -1).log()', 'value', 'square'),
        ('all axes', 'return x.exp().sum().log()', 'shape', ''),
        ('no logarithm', 'return x.exp().sum(-1)', 'value', ''),
        ('base 2', 'return x.exp().sum(-1).log2()', 'value', '1.443 times'),
        ('a mean', 'return x.exp().mean(-1).log()', 'value', 'off'),
        ('the shift does not come back',
         'm = x.max(-1, keepdim=True).values; return (x - m).exp().sum(-1).log()', 'value', ''),
        ('always float32', 'return x.float().exp().sum(-1).log()', 'dtype', ''),
        ('in place', 'm = x.max(-1, keepdim=True).values; x -= m; return x.exp().sum(-1).log() + m[..., 0]',
         'inputs unchanged', 'it changes x'),
        ('drops axes', 'return x.exp().sum(-1).log().squeeze()', 'batch of one', ''),
        ('NumPy', 'return x.exp().sum(-1).log().numpy()', 'type', 'NumPy'),
        ('ready-made', 'return torch.logsumexp(x, -1)', 'no ready-made function', 'logsumexp'),
        ('by log-softmax', 'return x[..., 0] - F.log_softmax(x, -1)[..., 0]', 'no ready-made function',
         'log_softmax'),
        ('at most 10000', 'x = x.clamp(-1e4, 1e4); m = x.amax(-1, keepdim=True); return m[..., 0] '
         '+ (x - m).exp().sum(-1).log()', 'stability', '')],
    'log_softmax': [
        ('the axis is missing', 'return x - logsumexp(x)', 'exception', 'RuntimeError'),
        ('loses digits', 'return x - logsumexp(x)[..., None]', 'stability', 'two equal scores', 'loses digits'),
        ('the axis is missing in a square',
         'return x - (logsumexp(x) if len(x) == x.shape[-1] else logsumexp(x)[..., None])', 'value', 'square'),
        ('the wrong sign', 'return logsumexp(x)[..., None] - x', 'value', 'every sign is the opposite'),
        ('probabilities', 'return (x - logsumexp(x)[..., None]).exp()', 'value', ''),
        ('the largest alone', 'return x - x.max(-1, keepdim=True).values', 'value', ''),
        ('a constant too much', 'return x - logsumexp(x)[..., None] + 1', 'value', 'every number is +1 off'),
        ('overflows', 'return x - x.exp().sum(-1, keepdim=True).log()', 'stability', ''),
        ('one shift for all', 'x = x - x.max(); return x - x.exp().sum(-1, keepdim=True).log()',
         'stability', ''),
        ('two axes alone', 'return x - logsumexp(x)[:, None]', 'exception', 'logsumexp(x)[:, None]'),
        ('always float32', 'return (x - logsumexp(x)[..., None]).float()', 'dtype', ''),
        ('in place', 'x -= logsumexp(x)[..., None]; return x', 'inputs unchanged', 'it changes x'),
        ('drops axes', 'return (x - logsumexp(x)[..., None]).squeeze()', 'batch of one', ''),
        ('NumPy', 'return (x - logsumexp(x)[..., None]).numpy()', 'type', 'NumPy'),
        ('ready-made', 'return x.log_softmax(-1)', 'no ready-made function', 'log_softmax'),
        ('a ready-made softmax', 'return torch.softmax(x, -1).log()', 'no ready-made function', 'softmax'),
        ('a ready-made logsumexp', 'return x - x.logsumexp(-1, keepdim=True)', 'no ready-made function',
         'logsumexp'),
        ('a small number in the logarithm',
         'p = (x - x.amax(-1, keepdim=True)).exp(); return (p/p.sum(-1, keepdim=True) + 1e-8).log()',
         'value', 'a small number added')],
    'nll': [
        ('the wrong sign', 'return log_probs[range(len(targ)), targ].mean()', 'value', 'sign is the opposite'),
        ('one-hot rows', 'return -(F.one_hot(targ, log_probs.shape[1])*log_probs).sum()/len(targ)',
         'stability', 'nan', '0 times infinity'),
        ('a new tensor', 'return -torch.stack([torch.tensor(float(row[t])) for row, t in '
         'zip(log_probs, targ)]).to(log_probs).mean()', 'gradient', 'autograd has lost',
         'Which line takes the numbers out'),
        ('a sum', 'return -log_probs[range(len(targ)), targ].sum()', 'value', '4 times too large'),
        ('a slice of rows', 'return -log_probs[:, targ].mean()', 'value', ''),
        ('the diagonal', 'return -log_probs.diag().mean()', 'value', ''),
        ('the first column', 'return -log_probs[:, 0].mean()', 'value', ''),
        ('a logarithm too much', 'return -log_probs[range(len(targ)), targ].exp().mean().log()', 'value', ''),
        ('no mean', 'return -log_probs[range(len(targ)), targ]', 'shape', '(4,), wanted ()'),
        ('an axis of 1', 'return -log_probs.gather(1, targ[:, None]).mean(0)', 'shape', '(1,), wanted ()'),
        ('a Python number', 'return -log_probs[range(len(targ)), targ].mean().item()', 'type', 'a float'),
        ('None', 'loss = -log_probs[range(len(targ)), targ].mean()', 'type', 'None'),
        ('always float32', 'return -log_probs[range(len(targ)), targ].mean().float()', 'dtype', ''),
        ('in place', 'return log_probs.neg_()[range(len(targ)), targ].mean()', 'inputs unchanged',
         'it changes log_probs'),
        ('drops axes', 'targ = targ.squeeze(); return -log_probs[range(len(targ)), targ].mean()',
         'batch of one', 'TypeError'),
        ('ready-made', 'return F.nll_loss(log_probs, targ)', 'no ready-made function', 'nll_loss'),
        ('classes from 1 on', 'return -log_probs[range(len(targ)), targ - 1].mean()', 'value', '')],
    'cross_entropy': [
        ('no softmax', 'return nll(logits, targ)', 'value', ''),
        ('walks back', 'loss = nll(log_softmax(logits), targ)\n    if loss.requires_grad: '
         'loss.backward()\n    return loss', 'gradient',
         'a second time (or directly access saved tensors after they have already been freed), for ',
         'whoever calls you'),
        ('the wrong sign', 'return -nll(log_softmax(logits), targ)', 'value', 'sign is the opposite'),
        ('no logarithm', 'return nll(log_softmax(logits).exp(), targ)', 'value', ''),
        ('along the columns', 'return nll(log_softmax(logits.t()).t(), targ)', 'value', ''),
        ('a sum', 'return nll(log_softmax(logits), targ)*len(targ)', 'value', '4 times too large'),
        ('no mean', 'return -log_softmax(logits)[range(len(targ)), targ]', 'shape', ''),
        ('overflows', 'p = logits.exp(); return nll((p/p.sum(-1, keepdim=True)).log(), targ)', 'stability',
         'nan'),
        ('a Python number', 'return nll(log_softmax(logits), targ).item()', 'type', 'a float'),
        ('None', 'loss = nll(log_softmax(logits), targ)', 'type', 'None'),
        ('always float32', 'return nll(log_softmax(logits.float()), targ)', 'dtype', ''),
        ('in place', 'logits -= logits.max(-1, keepdim=True).values; return nll(log_softmax(logits), targ)',
         'inputs unchanged', 'logits'),
        ('drops axes', 'return nll(log_softmax(logits.squeeze()), targ)', 'batch of one', ''),
        ('ready-made', 'return F.cross_entropy(logits, targ)', 'no ready-made function', 'cross_entropy'),
        ('a ready-made layer', 'return minibatch.CrossEntropy()(logits, targ)',
         'no ready-made function', 'CrossEntropy')],
    'train': [
        ('gradients pile up', ('p.grad = None', 'pass'), 'value', '2 of 3 numbers are right'),
        ('a parameter of another name', ('p -= lr*p.grad', 'p -= lr*p.g'), 'exception', "no attribute 'g'",
         '`.grad`'),
        ('tensors', ('loss.item()', 'loss.detach()'), 'type',
         'the list has a float64 tensor of shape () in it', ''),
        ('a tuple', ('return losses', 'return tuple(losses)'), 'type',
         'it returns a tuple, wanted a list, for '),
        ('climbs', ('p -= lr', 'p += lr'), 'value', 'every sign is the opposite, for a batch size'),
        ('a short last batch is left out',
         ('range(0, len(x), bs)', 'range(0, len(x) - bs + 1, bs)'), 'value', 'number of losses'),
        ('one epoch', ('range(epochs)', 'range(1)'), 'value', 'number of losses'),
        ('the wrong labels', ('y[i:i+bs]', 'y[:len(x[i:i+bs])]'), 'value', ''),
        ('no learning rate', ('lr*p.grad', 'p.grad'), 'value', '2 times too large'),
        ('moves a copy', ('p -= lr*p.grad', 'p = p - lr*p.grad'), 'value', 'all of it is zero'),
        ('from the end', ('in range(0, len(x), bs)', 'in reversed(range(0, len(x), bs))'), 'value', ''),
        ('watched by autograd', ('with torch.no_grad():', 'if True:'), 'exception', 'p -= lr*p.grad'),
        ('None', ('return losses', 'pass'), 'type', ''),
        ('float32 weights', ('return losses', 'model.float(); return losses'), 'dtype', 'float32'),
        ('freezes', ('return losses', 'model.requires_grad_(False); return losses'), 'value',
         'wants gradients'),
        ('changes its input', ('return losses', 'x.mul_(2); return losses'), 'inputs unchanged',
         'it changes x'),
        ('wants two rows', ('losses = []', 'losses = []; x[1]'), 'batch of one', 'IndexError'),
        ('torch.optim', ('losses = []', 'losses = []; torch.optim.SGD(model.parameters(), lr)'),
         'no ready-made function', ''),
        ('evaluation mode', ('losses = []', 'losses = []; model.eval()'), 'value', 'in training mode'),
        ('a rate that falls', ('loss.backward()', 'loss.backward(); lr *= .9'), 'value', '')],
    'SGD': [
        ('climbs', ('p -= self', 'p += self'), 'value', 'every sign is the opposite'),
        ('.g', ('p.grad is not None: p -= self.lr*p.grad', 'p.grad is not None: p -= self.lr*p.g'),
         'exception', "no attribute 'g'", '`.grad`'),
        ('does not move', ('p -= self.lr*p.grad', 'pass'), 'value', 'all of it is zero'),
        ('no learning rate', ('self.lr*p.grad', 'p.grad'), 'value', '10 times too large'),
        ('always the same rate', ('self.lr*p.grad', '.1*p.grad'), 'value', 'another learning rate'),
        ('signs alone', ('self.lr*p.grad', 'self.lr*p.grad.sign()'), 'value', ''),
        ('moves a copy', ('p -= self.lr*p.grad', 'p = p - self.lr*p.grad'), 'value', 'all of it is zero'),
        ('the first one alone',
         ('for p in self.params:\n            if', 'for p in self.params[:1]:\n            if'), 'value',
         'the move of 0.bias'),
        ('keeps what can be looped over once', ('list(params)', 'params'), 'iterator',
         'model.parameters()', 'looped over'),
        ('watched by autograd', ('@torch.no_grad()\n    ', ''), 'exception', 'RuntimeError'),
        ('wants a gradient', ('if p.grad is not None: ', ''), 'exception', 'a parameter without a gradient'),
        ('forgets nothing', ('for p in self.params: p.grad = None', 'pass'), 'value', 'zero_grad'),
        ('computes in float32', ('p -= self.lr*p.grad',
                                 'p.copy_(p.float() - self.lr*p.grad.float())'), 'value', 'float32'),
        ('no zero_grad', ('def zero_grad', 'def zero'), 'signature', '`zero_grad`'),
        ('ready-made', 'class SGD(torch.optim.SGD):\n    def step(self): super().step()\n    def '
         'zero_grad(self): super().zero_grad()',
         'no ready-made function', ''),
        ('one parameter of each shape', ('list(params)', 'list({p.shape: p for p in params}.values())'),
         'value', ''),
        ('changes the gradients', ('p -= self.lr*p.grad', 'p -= p.grad.mul_(self.lr)'), 'value',
         'step leaves the gradients')],
    'Momentum': [
        ('the rate goes into the move', ('move += p.grad', 'move += self.lr*p.grad'), 'value', ''),
        ('the rate belongs to the move',
         [('move += p.grad', 'move += self.lr*p.grad'), ('self.lr*move', 'move')], 'value', '`opt.lr` halved'),
        ('moves pile up', ('move *= self.momentum', 'pass'), 'value', ''),
        ('an average', ('move += p.grad', 'move += (1 - self.momentum)*p.grad'), 'value', ''),
        ('no memory', ('move *= self.momentum', 'move *= 0'), 'value', ''),
        ('climbs', ('p -= self', 'p += self'), 'value', 'every sign is the opposite'),
        ('no learning rate', ('self.lr*move', 'move'), 'value', ''),
        ('one move for all', ('[torch.zeros_like(p) for p in self.params]',
                              '[torch.zeros_like(self.params[0])]*9'), 'exception', 'move +='),
        ('keeps what can be looped over once', ('list(params)', 'params'), 'iterator',
         'model.parameters()', 'looped over'),
        ('watched by autograd', ('@torch.no_grad()\n    ', ''), 'exception', 'RuntimeError'),
        ('wants a gradient', ('p.grad is not None', 'True'), 'exception', 'a parameter without a gradient'),
        ('forgets nothing', ('p.grad = None', 'pass'), 'value', 'zero_grad'),
        ('moves of float32', ('zeros_like(p)', 'zeros(p.shape)'), 'value', 'float32'),
        ('one argument less', ('momentum:float, # how much of the last step to go on with, from 0 to 1\n', ''),
         'signature', 'momentum'),
        ('ready-made', ('self.params = list(params)', 'self.o = torch.optim.SGD(params, lr, momentum)'),
         'no ready-made function', ''),
        ('a first step of its own', ('move += p.grad', 'move += p.grad*(.1 if not move.any() else 1)'),
         'value', '')],
    'Dataset': [
        ('one less', ('return len(self.x)', 'return len(self.x) - 1'), 'value', 'the length'),
        ('a list for a slice', ('return self.x[i], self.y[i]',
                                'return list(zip(self.x[i], self.y[i])) if isinstance(i, slice) '
                                'else (self.x[i], self.y[i])'),
         'type', '`ds[i]` is a list, wanted a pair (x, y), a tuple, for a slice'),
        ('a length of tensors alone', ('len(self.x)', 'self.x.shape[0]'), 'exception',
         'a list of words', 'of another kind'),
        ('the other way round', ('self.x[i], self.y[i]', 'self.y[i], self.x[i]'), 'shape', 'its x'),
        ('always the first target', ('self.y[i]', 'self.y[0]'), 'value', 'its y'),
        ('no negative numbers', ('self.x[i], self.y[i]',
                                 'self.x[i], self.y[i if isinstance(i, slice) else abs(i)]'), 'value',
                                 'the last item'),
        ('numbers alone', ('self.x[i], self.y[i]', 'self.x[int(i)], self.y[int(i)]'), 'exception', 'a slice'),
        ('a list', ('self.x[i], self.y[i]', 'self.x[i].tolist(), self.y[i]'), 'type', 'a list'),
        ('a Python number', ('self.y[i]', 'int(self.y[i])'), 'type', ' int'),
        ('NumPy', ('self.x[i], ', 'self.x[i].numpy(), '), 'type', 'NumPy'),
        ('float targets', ('self.y[i]', 'self.y[i].float()'), 'dtype', 'its y'),
        ('an axis too much', ('self.x[i],', 'self.x[i][None],'), 'shape', 'its x'),
        ('changes its input', ('self.x, self.y = x, y', 'self.x, self.y = x.clone(), y; x.zero_()'),
         'inputs unchanged', 'it changes x'),
        ('no length', ('def __len__', 'def length'), 'signature', '__len__'),
        ('ready-made', 'class Dataset(torch.utils.data.TensorDataset):\n    def __init__(self, x, '
         'y): super().__init__(x, y)',
         'no ready-made function', 'TensorDataset'),
        ('begins again at its end',
         ('return self.x[i], self.y[i]',
          'i = i % len(self.x) if isinstance(i, int) else i; return self.x[i], self.y[i]'), 'iterator', '')],
    'Loader': [
        ('rounds down', ('-(-len(self.ds)//self.bs)', 'len(self.ds)//self.bs'), 'value', 'len(loader)'),
        ('shuffles the dataset itself',
         [('order = torch.randperm(n, generator=self.generator)',
           'r = torch.randperm(n, generator=self.generator); '
         'self.ds.x = self.ds.x[r]; self.ds.y = self.ds.y[r]')], 'inputs unchanged', 'it changes the data: '),
        ('no defaults', [('shuffle:bool=False', 'shuffle'),
                         ('generator:torch.Generator=None', 'generator')], 'signature',
         'takes (self, ds, bs, shuffle, generator), wanted (self, ds, bs, shuffle=False, generator=None)'),
        ('shuffles by default', ('shuffle:bool=False', 'shuffle:bool=True'), 'value', 'the order'),
        ('no yield', (f'for i in range(0, n, self.bs):\n            {GIVE}', 'return self.ds[order[:self.bs]]'),
         'exception', 'non-iterator', 'one thing after another'),
        ('a short last batch is left out',
         ('range(0, n, self.bs)', 'range(0, n - self.bs + 1, self.bs)'), 'value', '10 items'),
        ('never shuffles', ('if self.shuffle', 'if False'), 'value', 'the order is shuffled'),
        ('always shuffles', ('if self.shuffle', 'if True'), 'value', 'the order'),
        ('not from the generator', ('generator=self.generator)', 'generator=None)'), 'value', 'the same seed'),
        ('items come twice', ('torch.randperm(n,', 'torch.randint(n, (n,),'), 'value', 'once in an epoch'),
        ('the same order each time', ('generator=self.generator)',
                                      'generator=torch.Generator().manual_seed(0))'), 'value', 'a new order'),
        ('from the end', ('torch.arange(n)', 'torch.arange(n).flip(0)'), 'value', 'the order'),
        ('x and y apart', (GIVE, 'yield self.ds.x[order[i:i+self.bs]], self.ds.y[i:i+self.bs]'),
         'value', 'stay together'),
        ('returns', (GIVE, 'return self.ds[order[i:i+self.bs]]'), 'exception', ''),
        ('inputs alone', (GIVE, 'yield self.ds[order[i:i+self.bs]][0]'), 'type', 'a pair of tensors'),
        ('drops axes', ('order[i:i+self.bs]', 'order[i:i+self.bs].squeeze()'), 'batch of one', ''),
        ('one more', ('order[i:i+self.bs]', 'order[i:i+self.bs + 1]'), 'value', 'sizes'),
        ('endless', ('for i in range(0, n, self.bs)', 'while i := 1'), 'time', 'did not finish'),
        ('ready-made', (GIVE, 'yield from torch.utils.data.DataLoader(self.ds, self.bs)'),
         'no ready-made function', 'DataLoader'),
        ('PyTorch\'s batches of numbers',
         ('for i in range(0, n, self.bs):\n            ' + GIVE,
          'for b in torch.utils.data.BatchSampler(order.tolist(), self.bs, False):\n            '
          'yield self.ds[torch.tensor(b)]'),
         'no ready-made function', 'BatchSampler'),
        ('sorted batches', (GIVE, 'yield self.ds[order[i:i+self.bs].sort().values]'), 'value', '')],
    'test_lin_grad': [
        ('asserts nothing', (CHECK, 'pass'), 'bugs killed', 'finds 1 of 9'),
        ('refuses what einsum gives', (CHECK, CHECK + "; assert lin_grad.__name__ == 'lin_grad'"),
         'right one accepted', 'for a right one, by einsum'),
        ('does not look at the weights',
         (CHECK, 'check_grads(dict(inp=inp.g, b=b.g), dict(inp=want["inp"], b=want["b"]))'), 'bugs killed',
         'weights'),
        ('one row', ('(4, 3, 2), (3, 3, 3), (1, 2, 3)', '[(1, 3, 2)]'), 'bugs killed', 'mean'),
        ('no square', ('(3, 3, 3), ', ''), 'bugs killed',
         'finds 8 of 9 bugs; one that it does not find: square'),
        ('calls once', ('range(2)', 'range(1)'), 'bugs killed',
         'finds 8 of 9 bugs; one that it does not find: a second call'),
        ('does not look at out.g', ('assert torch.equal(out.g, g)', 'break'), 'bugs killed', 'finds 7 of 9'),
        ('shapes alone', (CHECK, 'assert b.g.shape == b.shape'), 'bugs killed', ''),
        ('lax', (CHECK, CHECK[:-1] + ', 1e9)'), 'bugs killed', ''),
        ('catches its own assertion',
         (CHECK, f'\n            try: {CHECK}\n            except AssertionError: pass'), 'bugs killed', ''),
        ('wants twice as much', ('inp @ w + b, g', 'inp @ w + b, 2*g'), 'right one accepted', ''),
        ('wants nothing to be set', (CHECK, 'assert not hasattr(b, "g")'), 'right one accepted', ''),
        ('always fails', 'assert False', 'right one accepted', 'assert False'),
        ('calls it wrongly', 'lin_grad(torch.ones(2, 2))', 'exception', 'TypeError')],
    'test_mse': [
        ('asserts nothing', ('check_grads(dict(inp=inp.g), dict(inp=times*want))', 'pass'),
         'bugs killed', 'finds 1 of 9'),
        ('one column', ('(4, 1), (3, 2)', '[(4, 1)]'), 'bugs killed',
         'finds 8 of 9 bugs; one that it does not find: it is divided by the rows'),
        ('a gradient of 1', ('out.g = torch.tensor(3.)\n        want = 3*', 'want = '),
         'bugs killed', 'the gradient that arrives'),
        ('walks back once', ('times in 1, 2', 'times in [1]'), 'bugs killed', 'it sets the gradient'),
        ('does not look at its input', ('assert torch.equal(inp, before)', 'break'), 'bugs killed',
         'finds 7 of 9'),
        ('predictions too high', ('torch.randn(shape), torch.randn(shape)',
                                  'torch.ones(shape), torch.zeros(shape)'), 'bugs killed', 'too high'),
        ('lax', ('dict(inp=times*want))', 'dict(inp=times*want), 9.)'), 'bugs killed', ''),
        ('bit by bit', ('check_grads(dict(inp=inp.g), dict(inp=times*want))',
                        'assert torch.equal(inp.g, times*want)'), 'right one accepted', ''),
        ('wants no sum', ('inp=times*want', 'inp=want'), 'right one accepted', ''),
        ('wants the other sign', ('inp - targ', 'targ - inp'), 'right one accepted', ''),
        ('always fails', 'assert False', 'right one accepted', 'assert False'),
        ('calls it wrongly', 'Mse(torch.ones(2), torch.ones(2))', 'exception', 'TypeError')],
    'test_log_softmax': [
        ('asserts nothing', 'log_softmax(torch.randn(3, 3))', 'bugs killed', 'finds 0 of 9'),
        ('small scores', SOFT.format('torch.randn(3, 3), torch.randn(4, 2)', ''), 'bugs killed',
         'large scores overflow'),
        ('a square of equal columns', SOFT.format('1000*torch.randn(1, 1), torch.ones(3, 3)', ''),
         'bugs killed', ''),
        ('shapes alone', 'x = torch.randn(4, 2)\n    assert log_softmax(x).shape == x.shape', 'bugs killed',
         ''),
        ('does not look at its input', ('assert torch.equal(x, before)', 'pass'), 'bugs killed',
         'finds 8 of 9 bugs; one that it does not find: it changes'),
        ('lax', SOFT.format('torch.randn(3, 3), 1000*torch.randn(4, 2)', ', rtol=9, atol=9'), 'bugs killed',
         ''),
        ('goes on after an error',
         ('got = log_softmax(x)',
          '\n            try: got = log_softmax(x)\n            except Exception: return'), 'bugs killed',
          'an error'),
        ('bit by bit', ('torch.testing.assert_close(got, torch.log_softmax(x, -1))',
                        'assert torch.equal(got, torch.log_softmax(x, -1))'),
         'right one accepted', ''),
        ('along the first axis', ('torch.log_softmax(x, -1))\n            assert',
                                  'torch.log_softmax(x, 0))\n            assert'),
         'right one accepted', ''),
        ('wants probabilities', 'assert (log_softmax(torch.randn(3, 4)) >= 0).all()', 'right one accepted', ''),
        ('always fails', 'assert False', 'right one accepted', 'assert False'),
        ('calls it wrongly', 'log_softmax()', 'exception', 'TypeError')],
    'test_train': [
        ('asserts nothing', 'train(nn.Linear(3, 2), torch.randn(4, 3), torch.zeros(4).long(), 1, 2, .1)',
         'bugs killed', 'finds 0 of 9'),
        ('the same model, by another name',
         ('theirs.load_state_dict(mine.state_dict())', 'theirs = mine'), 'right one accepted', '',
         'each its own'),
        ('a falling loss', 'x = torch.randn(8, 3)\n    y = (x[:, 0] > 0).long()\n    losses = '
         'train(nn.Linear(3, 2), x, y, 9, 4, .5)\n'
         '    assert losses[-1] < losses[0]', 'bugs killed', ''),
        ('parameters alone', ('torch.testing.assert_close(torch.tensor(got), torch.tensor(losses))', 'pass'),
         'bugs killed', 'the last loss'),
        ('lax', [('close(p, q)', 'close(p, q, rtol=9, atol=9)'),
                 ('torch.tensor(losses))', 'torch.tensor(losses), rtol=9, atol=9)')],
         'bugs killed', ''),
        ('no short batch', [('torch.randn(10, 3), torch.arange(10)', 'torch.randn(8, 3), torch.arange(8)'),
                            ('[0, 4, 8]*2', '[0, 4]*2')],
         'bugs killed', 'finds 8 of 9 bugs; one that it does not find: a short last batch'),
        ('one epoch', [('[0, 4, 8]*2', '[0, 4, 8]'), ('x, y, 2, 4', 'x, y, 1, 4')],
         'bugs killed', 'finds 8 of 9 bugs; one that it does not find: it stops after one epoch'),
        ('a rate of 1', [('lr=.5', 'lr=1.'), ('4, .5)', '4, 1.)')], 'bugs killed',
         'finds 8 of 9 bugs; one that it does not find: the learning rate'),
        ('one label', ('torch.arange(10)//3 % 2', 'torch.zeros(10).long()'), 'bugs killed',
         'finds 8 of 9 bugs; one that it does not find: the labels'),
        ('another rate', ('lr=.5', 'lr=.4'), 'right one accepted', ''),
        ('the same model twice', ('mine, theirs = model(), model()', 'mine = theirs = model()'),
         'right one accepted', ''),
        ('models that differ', ('theirs.load_state_dict(mine.state_dict())', 'pass'), 'right one accepted', ''),
        ('wants no last batch', ('[0, 4, 8]', '[0, 4]'), 'right one accepted', ''),
        ('always fails', 'assert False', 'right one accepted', 'assert False'),
        ('calls it wrongly', 'train()', 'exception', 'TypeError')],
    'topological_order': [
        ('by distance', 'order, todo = [], [out]\n    while todo:\n        v = todo.pop(0)\n'
         '        if v not in order: order.append(v); todo.extend(parts(v))\n    return order', 'order',
         'which was made of it'),
        ('depth first, each when it is met',
         WALK.format('[out]', '', '').replace('return order', 'return list(dict.fromkeys(order))')
         .replace('todo += parts(v)', 'todo += parts(v) if v not in order[:-1] else []'), 'order', ''),
        ('leaves first', ('noted[::-1]', 'noted'), 'order', "'x' comes before 'b', which was made of it"),
        ('each path by itself', WALK.format('[out]', '', ''), 'value', "'x' is in it 2 times, wanted once"),
        ('each path by itself, and the last visit counts',
         WALK.format('[out]', '', '').replace('return order',
                                              'return list(dict.fromkeys(order[::-1]))[::-1]'), 'visits',
                                              'more than ten times'),
        ('the same, and it catches all', WALK.format('[out]', 'try: ', '\n        except Exception: break')
         .replace('return order', 'return list(dict.fromkeys(order[::-1]))[::-1]'), 'visits',
         'more than ten times'),
        ('recursion', 'order, seen = [], set()\n    def visit(v):\n        if v in seen: return\n '
         '       seen.add(v)\n'
         '        for p in parts(v): visit(p)\n        order.append(v)\n    visit(out)\n    '
         'return order[::-1]', 'exception', 'RecursionError',
         'a loop, need no depth'),
        ('a value used twice by one counts once', KAHN.format('set(parts(v))', 'parts(v)', '== 0'), 'order',
         ''),
        ('the same, the other way round', KAHN.format('parts(v)', 'set(parts(v))', '== 0'), 'value',
         'is not in it'),
        ('ready at the first use', KAHN.format('parts(v)', 'parts(v)', '>= 0'), 'value', 'times, wanted once'),
        ('without the leaves', ('return noted[::-1]', 'return [v for v in noted[::-1] if parts(v)]'),
         'value', "'x' is not in it"),
        ('without its start', ('noted[::-1]', 'noted[-2::-1]'), 'value', "'y' is not in it"),
        ('what was seen is kept',
         ('noted, seen, todo = [], set(), ',
          'seen = topological_order.__dict__.setdefault("seen", set()); noted, todo = [], '),
         'two calls', 'is not in it', 'Each call has its own'),
        ('an iterator', ('noted[::-1]', 'reversed(noted)'), 'type', 'wanted a list'),
        ('None', ('return noted[::-1]', 'pass'), 'type', 'None, wanted a list'),
        ('lists of parts', ('noted.append(v)', 'noted.append(parts(v))'), 'exception', 'TypeError'),
        ('adds to the list that it was given',
         'order, todo = [out], parts(out)\n    while todo:\n        v = todo.pop()\n'
         '        if v not in order: order.append(v); todo.extend(parts(v))\n    return order',
         'inputs unchanged', "the parts of 'y'"),
        ('ready-made', 'from graphlib import TopologicalSorter\n    graph, todo = {}, [out]\n    '
         'while todo:\n        v = todo.pop()\n'
         '        if v not in graph: graph[v] = parts(v); todo += graph[v]\n    return '
         'list(TopologicalSorter(graph).static_order())[::-1]',
         'no ready-made function', 'TopologicalSorter'),
        ('a list that all calls share',
         'def topological_order(out, parts, order=[]):\n    if out not in order:\n        for p '
         'in parts(out): topological_order(p, parts)\n'
         '        order.append(out)\n    return order[::-1]', 'two calls', '')],
    'backward': [
        ('= for +=', ('part.g += ', 'part.g = '), 'gradient', ''),
        ('forgets the slope', ('slope*v.g', 'v.g'), 'gradient', ''),
        ('forgets v.g', ('slope*v.g', 'slope'), 'gradient', ''),
        ('starts at the value', ('out.g = 1', 'out.g = out.value'), 'gradient', '6 times too large'),
        ('does not start', ('out.g = 1', 'pass'), 'gradient', 'all of it is zero'),
        ('recursion, with all that has come',
         'out.g = 1\n    def go_on(v):\n        for p, slope in v.made_of:\n            p.g += slope*v.g\n'
         '            go_on(p)\n    go_on(out)', 'gradient', ''),
        ('by distance', ('topological_order(out, lambda v: [part for part, slope in v.made_of])',
                         '[out]; any(order.extend(p for p, _ in v.made_of if p not in order) for '
                         'v in order)'), 'gradient', ''),
        ('from the leaves', ('    for v in order:\n        for', '    for v in order[::-1]:\n        for'),
         'gradient', ''),
        ('all starts anew', ('        if v.made_of:\n            v.g = 0', '        v.g = 0'),
         'gradients add up', ''),
        ('nothing starts anew', ('v.g = 0', 'pass'), 'two calls', ''),
        ('leaves start anew', ('if v.made_of', 'if not v.made_of'), 'gradients add up', ''),
        ('all starts anew, if it is the same again',
         ('    for v in order:\n        if v.made_of:',
          '    again = out.g\n    for v in order:\n        if v.made_of or again:'), 'two calls', ''),
        ('each path by itself',
         'out.g = 1\n    todo, leaves = [(out, 1)], []\n    while todo:\n        v, g = todo.pop()\n'
         '        for p, slope in v.made_of:\n            p.g += slope*g\n            '
         'todo.append((p, slope*g))', 'two calls', ''),
        ('the same, and starts anew',
         'for v in topological_order(out, lambda v: [p for p, _ in v.made_of]):\n        if '
         'v.made_of: v.g = 0\n'
         '    out.g = 1\n    todo = [(out, 1)]\n    while todo:\n        v, g = todo.pop()\n'
         '        for p, slope in v.made_of:\n            p.g += slope*g\n            '
         'todo.append((p, slope*g))', 'time', 'did not finish'),
        ('the order by recursion',
         ('topological_order(out, lambda v: [part for part, slope in v.made_of])', '[]\n    def visit(v):\n'
         '        for p, _ in v.made_of: visit(p) if p not in order else None\n        if v not '
         'in order: order.append(v)\n'
         '    visit(out); order.reverse()'), 'exception', 'RecursionError', 'a loop, need no depth'),
        ('tensors have it', ('part.g', 'part.grad'), 'exception', "no attribute 'grad'")],
    'tanh': [
        ('forgets g', ('g*(1', '(1'), 'gradient', ''),
        ('the wrong sign', ('g*(1', '-g*(1'), 'gradient', 'every sign is the opposite'),
        ('no square', ('**2', ''), 'gradient', ''),
        ('the square of what went in', ('tanh(a)**2', 'a**2'), 'gradient', ''),
        ('the sigmoid of it', ('tanh(a)**2', 'tanh(a)'), 'gradient', ''),
        ('a rule of numbers', ('tanh(a)**2', 'a.data.tanh()**2'), 'second derivative', 'the second derivative'),
        ('all of the rule in numbers', ('g*(1 - tanh(a)**2)', 'Tensor(g.data*(1 - a.data.tanh()**2))'),
         'second derivative', '',
         'which record, or numbers'),
        ('the rule holds the result',
         'out = result(a.data.tanh(), (a, lambda g: g*(1 - out*out)))\n    return out', 'loop in memory',
         'when nobody holds it', 'Which name in the rule'),
        ('no rule', 'return result(a.data.tanh())', 'rule', '0 arrows'),
        ('a leaf', 'return Tensor(a.data.tanh())', 'rule', '0 arrows'),
        ('made of other operations', 'e = (2*a).exp()\n    return (e - 1)/(e + 1)', 'rule', '2 arrows'),
        ('an arrow to another', ('(a, lambda', '(Tensor(a), lambda'), 'rule', 'it leads to `a`'),
        ('numbers', 'return a.data.tanh()', 'type', 'wanted a Tensor'),
        ('None', ('return ', ''), 'type', 'None'),
        ('in place', ('a.data.tanh()', 'a.data.tanh_()'), 'inputs unchanged', 'it changes x'),
        ('always float32', ('a.data.tanh()', 'a.data.float().tanh()'), 'dtype', 'float32'),
        ('exponentials that overflow', ('a.data.tanh()', '((2*a.data).exp() - 1)/((2*a.data).exp() + 1)'),
         'stability', 'nan or infinite'),
        ('another function', ('a.data.tanh()', 'a.data.sigmoid()'), 'value', ''),
        ('a gradient that is summed',
         ('lambda g: g*(1 - tanh(a)**2)', 'lambda g: (g*(1 - tanh(a)**2)).sum()'), 'shape', 'a.g has shape ()'),
        ('one number', ('a.data.tanh()', 'a.data.tanh().mean()'), 'shape', 'shape ()'),
        ('a rule that gives nothing', ('lambda g: g*(1 - tanh(a)**2)', 'lambda g: None'), 'exception', ''),
        ('one rule for all calls',
         'global kept\n    kept = a\n    return result(a.data.tanh(), (a, lambda g: g*(1 - '
         'tanh(kept)**2)))', 'gradient', ''),
        ('keeps all results',
         'import torch\nkept = []\ndef tanh(a):\n    kept.append(result(a.data.tanh(), (a, lambda '
         'g: g*(1 - tanh(a)**2))))\n    return kept[-1]',
         'loop in memory', 'when nobody holds it')],
    'test_engine': [
        ('asserts nothing', '(Tensor(torch.ones(2)) + Tensor(torch.ones(2))).sum().backward()',
         'bugs killed', 'finds 0 of 7'),
        ('no value twice', ('(h + h*h)', 'h'), 'bugs killed', ''),
        ('no shortcut', ('(h + h*h)', '(h*h)'), 'bugs killed',
         'finds 5 of 7 bugs; one that it does not find: it goes by the distance'),
        ('calls once', ('1, 2', '[1]'), 'bugs killed',
         'finds 5 of 7 bugs; one that it does not find: gradients in between'),
        ('a new graph for each call',
         ('        loss.backward()', '        loss = f(*ours)\n        loss.backward()'), 'bugs killed',
         'gradients in between'),
        ('no broadcasting', ('torch.randn(4)', 'torch.randn(3, 4)'), 'bugs killed',
         'finds 6 of 7 bugs; one that it does not find: broadcasting'),
        ('one leaf', ('dict(x=ours[0].g, b=ours[1].g), {k: times*g for k, g in want.items()}',
                      'dict(x=ours[0].g), dict(x=times*want["x"])'),
         'bugs killed', 'broadcasting'),
        ('memory is not looked at', ('assert seen() is None', 'pass'), 'bugs killed',
         'finds 6 of 7 bugs; one that it does not find: its graph'),
        ('waits for the garbage collector',
         ('    assert seen', '    import gc; gc.collect()\n    assert seen'), 'bugs killed', 'its graph'),
        ('lax', ('want.items()})', 'want.items()}, 1e9)'), 'bugs killed', ''),
        ('wants the loss to have a gradient', ('    seen =', '    assert loss.g == 1\n    seen ='),
         'right one accepted', "the chapter's"),
        ('bit by bit', ('check_grads(dict(x=ours[0].g, b=ours[1].g), {k: times*g for k, g in want.items()})',
                        'assert torch.equal(ours[0].g, times*want["x"])'), 'right one accepted', ''),
        ('wants leaves to start anew', ('times*g', 'g'), 'right one accepted', ''),
        ('holds the loss itself', ('seen = weakref.ref(loss)', 'seen = lambda loss=loss: loss'),
         'right one accepted', ''),
        ('always fails', 'assert False', 'right one accepted', 'assert False'),
        ('calls it wrongly', 'Tensor()', 'exception', 'TypeError')],
}


# ---- by kind ----
def renamed(name, body):
    "The solution under another name, `right`, and below it a function that may call it"
    return f'import torch\n{solution(name).replace(f"def {name}(", "def right(")}\n{body}'

def cached(name):
    "A function that keeps its result for the next inputs of the same shape"
    return renamed(name, f'kept = {{}}\ndef {name}(*args):\n    key = args[0].shape, args[0].dtype, args[0].stride()\n'
                         '    if key not in kept: kept[key] = right(*args)\n    return kept[key]')

def flat(name, *inputs):
    "A function that needs its inputs' numbers side by side in memory"
    return before(name, *(f'{k}.view(-1)' for k in inputs))

def shared(name, *attributes):
    "A class that keeps these in the class, not in the object"
    text = solution(name)
    for k in attributes: text = text.replace(f'self.{k}', f'{name}.{k}')
    return text

def detached(name, *inputs): return before(name, *(f'{k} = {k}.detach()' for k in inputs))
def held(name, *pairs):
    "A layer that adds in place"
    return re.sub(r'add_grad\((\S+), (.+)\)',
                  r'\1.g = (\1.g.add_(\2) if getattr(\1, "g", None) is not None else \2)', solution(name))

INSIDE = '''import torch
class {}:
    def __init__(self, {}): self.lr, self.opt = lr, {}
    def step(self):
        self.opt.param_groups[0]['lr'] = self.lr
        self.opt.step()
    def zero_grad(self): self.opt.zero_grad()'''        # PyTorch's optimizer in an object
LEFT_OUT = {                       # of a kind: why the exercises that it doesn't have can't meet it
    'called again': 'WRONG has those of chapter 6', 'two objects': 'a function keeps nothing for an object',
    'an option': 'they have none', 'other words': 'there is one way to read the task, or its numbers tell',
    'autograd is cut': 'none goes through them',
    'any shape': 'theirs is fixed, or they hand tensors on as they are',
    'laid out otherwise': 'they hand tensors on, entry by entry, or are given no tensors of ours',
    'digits lost': 'sums and products of few numbers lose none',
    'another name': 'all that they give is computed, or to be shared',
    'ready-made': 'nothing of PyTorch\'s does it; WRONG has what the library has'}
AGAIN = {name: (cached(name), 'value')
         for name in 'matmul relu lin mse logsumexp log_softmax nll cross_entropy'.split()}
BY_KIND = {
    'called again': AGAIN | {
        'mse_grad': ('from backprop13.backprop import add_grad; add_grad(inp, 2*(inp - targ)/inp.numel())',
                     'gradient'),
        'relu_grad': ('from backprop13.backprop import add_grad; add_grad(inp, out.g*(inp > 0))', 'gradient'),
        'lin_grad': ('from backprop13.backprop import add_grad\n    for t, g in (inp, out.g @ '
                     'w.t()), (w, inp.t() @ out.g), (b, out.g.sum(0)): add_grad(t, g)', 'gradient'),
        'forward_and_backward': (renamed('forward_and_backward',
                                         'def forward_and_backward(inp, targ, w1, b1, w2, b2):\n'
            '    old = getattr(w1, "g", 0)\n    loss = right(inp, targ, w1, b1, w2, b2)\n    w1.g '
            '= w1.g + old\n    return loss'), 'gradient'),
        'Lin': ([('add_grad(self.b, out.g.sum(0))',
                  'self.b.g = out.g.sum(0) if not hasattr(self.b, "g") else self.b.g + out.g.sum(0)')],
                  'exception'),
        'Sigmoid': ('class Sigmoid(Module):\n    def forward(self, inp):\n'
            '        if not hasattr(self, "s"): self.s = 1/(1 + (-inp).exp())\n        return self.s\n'
            '    def bwd(self, out, inp): add_grad(inp, out.g*out*(1 - out))', 'two calls'),
        'Scale': ([('return inp*self.w', 'self.inp = inp; return inp*self.w'),
                   ('(out.g*inp)', '(out.g*self.inp)')], 'two calls'),
        'Chain': ([('self.layers, self.loss = layers, loss',
                    'self.layers, self.loss = layers, loss; self.back = reversed(layers)'),
                   ('reversed(self.layers)', 'self.back')], 'gradient'),
        'train': (renamed('train', 'seen = []\ndef train(model, x, y, epochs, bs, lr):\n    '
                          'seen.append(model)\n'
            '    return right(seen[0], x, y, epochs, bs, lr)'), 'value'),
        'SGD': ([('self.params, self.lr = list(params), lr', 'self.params, self.lr = iter(params), lr')],
                'value'),
        'Momentum': ([('self.moves = [torch.zeros_like(p) for p in self.params]',
                       'self.moves = [0]*len(self.params)'),
                      ('move *= self.momentum', 'move = move*self.momentum'),
                      ('move += p.grad', 'move = move + p.grad')], 'value'),
        'Dataset': ([('return self.x[i], self.y[i]',
                      'self.i = getattr(self, "i", i); return self.x[self.i], self.y[self.i]')], 'value'),
        'Loader': ([('def __iter__(self): # yields (xb, yb)',
                     'def __iter__(self):\n        self.i = 0\n        self.o = torch.randperm(len(self.ds), '
                     'generator=self.generator) if self.shuffle else torch.arange(len(self.ds))\n '
                     '       return self\n    def __next__(self):\n'
                     '        if self.i >= len(self.ds): raise StopIteration\n        b = '
                     'self.o[self.i:self.i+self.bs]\n'
                     '        self.i += self.bs\n        return self.ds[b]\n    def unused(self):')], 'value'),
    } | {name: (f'import torch\ncalls = []\ndef {name}({bodies(name, "").split("(")[1].split(")")[0]}):\n    calls.append(1)\n'
                '    assert len(calls) < 3', 'bugs killed') for name in TESTS},
    'two objects': {
        'Lin': (shared('Lin', 'w', 'b'), 'two calls'), 'Scale': (shared('Scale', 'w'), 'two calls'),
        'Sigmoid': ([('return 1/(1 + (-inp).exp())',
                      'Sigmoid.s = 1/(1 + (-inp).exp()); return Sigmoid.s.clone()'),
                     ('out.g*out*(1 - out)', 'out.g*Sigmoid.s*(1 - Sigmoid.s)')], 'two calls'),
        'Chain': (shared('Chain', 'layers', 'loss'), 'two calls'),
        'SGD': (shared('SGD', 'params', 'lr'), 'two calls'),
        'Momentum': (shared('Momentum', 'moves'), 'two calls'),
        'Dataset': (shared('Dataset', 'x', 'y'), 'two calls'),
        'Loader': (shared('Loader', 'ds', 'bs'), 'value')},
    'an option': {
        'train': ([('range(epochs)', 'range(min(epochs, 2))')], 'value'),
        'SGD': ([('self.params, self.lr = list(params), lr',
                  'self.params, self.lr, self.rate = list(params), lr, lr'),
                 ('self.lr*p.grad', 'self.rate*p.grad')], 'value'),
        'Momentum': ([('self.lr, self.momentum = lr, momentum', 'self.lr, self.momentum = lr, .9')], 'value'),
        'Loader': ([('generator=self.generator', 'generator=torch.Generator().manual_seed(len(self.ds))')],
                   'value')},
    'other words': {
        'Loader': ([('order = torch.randperm(n, generator=self.generator)',
                     'order = (order + torch.randint(n, (1,), generator=self.generator))%n')], 'value'),
        'train': ([('for i in range(0, len(x), bs):', 'for i in reversed(range(0, len(x), bs)):')], 'value'),
        'Momentum': ([('for p, move in zip(self.params, self.moves):',
                       'for i, p in enumerate(self.params):\n            '
                       'move = self.moves[[q.shape for q in self.params].index(p.shape)]')], 'value')},
    'autograd is cut': {name: (detached(name, *args), 'gradient') for name, args in dict(
        relu='x', lin='w', mse=('output', 'targ'), logsumexp='x', log_softmax='x', nll=('log_probs',),
        cross_entropy=('logits',)).items()},
    'any shape': {
        'relu': ('return torch.stack([torch.stack([v if v > 0 else 0*v for v in row]) for row in '
                 'x]) if x.ndim == 2 else '
                 'torch.stack([v if v > 0 else 0*v for v in x])', 'exception'),
        'mse': ('return ((output - targ)**2).sum()/(len(output)*(output.shape[1] if output.ndim > '
                '1 else 1))', 'value'),
        'mse_grad': ('inp.g = 2*(inp - targ)/(len(inp)*inp[0].numel())', 'exception'),
        'relu_grad': ('inp.g = torch.stack([g*(v > 0) for g, v in zip(out.g, inp)])', 'exception'),
        'Sigmoid': ([('return 1/(1 + (-inp).exp())',
                      'return torch.stack([1/(1 + (-v).exp()) for v in inp])')], 'exception'),
        'logsumexp': ('a = x.amax(1, keepdim=True) if x.ndim > 1 else x.max()\n    return '
                      'a.squeeze() + (x - a).exp().sum(-1).log()', 'exception'),
        'log_softmax': ('x = x - x.amax(1 if x.ndim > 1 else 0, keepdim=True)\n    return x - '
                        'x.exp().sum(1 if x.ndim > 1 else 0, keepdim=True).log()', 'value'),
        'nll': ('return -log_probs[:, targ].diag().mean()', 'memory'),
        'cross_entropy': ('return -log_softmax(logits)[:, targ].diag().mean()', 'memory')},
    'laid out otherwise': {name: (flat(name, *args), 'exception') for name, args in dict(
        matmul='ab', relu='x', lin='xw', mse=('output', 'targ'), mse_grad=('inp', 'targ'),
        relu_grad=('inp', 'out'), lin_grad=('inp', 'w'),
        forward_and_backward=('inp', 'w1'), logsumexp='x', log_softmax='x', nll=('log_probs',),
        cross_entropy=('logits',)).items()} | {
        'Lin': ([('lin(inp,', 'lin(inp.view(-1).view(inp.shape),')], 'exception'),
        'Sigmoid': ([('(-inp).exp()', '(-inp.view(-1)).exp().view(inp.shape)')], 'exception'),
        'Scale': ([('return inp*self.w', 'return inp.view(-1).view(inp.shape)*self.w')], 'exception'),
        'Chain': ([('for layer in self.layers:', 'x.view(-1)\n        for layer in self.layers:')],
                  'exception'),
        'train': ([('for epoch in range(epochs):', 'x.view(-1)\n    for epoch in range(epochs):')],
                  'exception'),
        'Loader': ([(GIVE, 'x, y = self.ds[order[i:i+self.bs]]\n            yield '
                     'x.view(-1).view(x.shape), y')], 'exception')},
    'digits lost': {
        'matmul': ('p, q = a[:, :, None], b; return ((p + q)**2 - (p - q)**2).sum(1)/4', 'stability'),
        'mse': ('return (output**2 - 2*output*targ + targ**2).mean()', 'stability'),
        'Sigmoid': ([('1/(1 + (-inp).exp())', '(1 + (inp/2).tanh())/2')], 'stability'),
        'logsumexp': ('return x.double().exp().sum(-1).log().to(x)', 'stability'),
        'log_softmax': ('return (x - x.amax(-1, keepdim=True)).exp().div((x - x.amax(-1, '
                        'keepdim=True)).exp().sum(-1, keepdim=True)).log()', 'stability'),
        'cross_entropy': ('return -(logits.exp()/logits.exp().sum(1, '
                          'keepdim=True)).log()[torch.arange(len(targ)), targ].mean()', 'stability')},
    'another name': {
        'relu': ('return x if x.ndim and (x > 0).all() else x*(x > 0)', 'inputs unchanged'),
        'relu_grad': ('inp.g = out.g if inp.ndim and (inp > 0).all() else out.g*(inp > 0)', 'inputs unchanged'),
        'lin_grad': ('inp.g, w.g = out.g @ w.t(), inp.t() @ out.g; b.g = out.g[0] if len(inp) == '
                     '1 else out.g.sum(0)', 'inputs unchanged'),
        'Lin': (held('Lin'), 'inputs unchanged'), 'Sigmoid': (held('Sigmoid'), 'inputs unchanged'),
        'Scale': (held('Scale'), 'inputs unchanged'),
        'Chain': ([('self.layers, self.loss = layers, loss',
                    'layers.reverse(); self.layers, self.loss = layers[::-1], loss')], 'inputs unchanged'),
        'Momentum': ([('move *= self.momentum',
                       'if not move.any(): self.moves[[id(o) for o in '
                       'self.moves].index(id(move))] = move = p.grad\n'
                       '                else: move.mul_(self.momentum).add_(p.grad)'),
                       ('                move += p.grad\n', '')], 'value')},
    'ready-made': {name: (body, 'no ready-made function') for name, body in dict(
        matmul='return torch.ops.aten.mm(a, b)', relu='return F.celu(x, 1e-30)',
        lin='return torch.addmm(b, x, w)',
        mse='return 2*F.gaussian_nll_loss(output, targ, torch.ones_like(output), eps=1e-9)',
        mse_grad='inp.g = torch.ops.aten.mse_loss_backward(inp.new_ones(()), inp, targ, 1)',
        relu_grad='inp.g = torch.ops.aten.threshold_backward(out.g, inp, 0)',
        lin_grad='from backprop13.backprop import Lin; l = Lin(w, b); l(inp); l.backward()',
        logsumexp='return -F.softmin(-x, -1).log().amax(-1) + x.amax(-1)',
        log_softmax='return torch.distributions.Categorical(logits=x).logits',
        nll='return F.cross_entropy(log_probs, targ)',
        cross_entropy='return minibatch.CrossEntropy()(logits, targ)').items()} | {
        'forward_and_backward': ('from backprop13.backprop import Model; m = Model(w1, b1, w2, '
                                 'b2); loss = m(inp, targ); m.backward(); return loss',
                                 'no ready-made function'),
        'Sigmoid': ([('1/(1 + (-inp).exp())', 'torch.stack([inp, 0*inp], -1).softmax(-1)[..., 0]')],
                    'no ready-made function'),
        'train': (OPT.replace('torch.optim.SGD',
                              '__import__("backprop13.fitting").fitting.SGD').replace('\n    opt',
                                  'losses = []\n    opt', 1), 'no ready-made function'),
        'Loader': ([('for i in range(0, n, self.bs):\n            yield self.ds[order[i:i+self.bs]]',
                     'yield from torch.utils.data.DataLoader(self.ds, self.bs)')], 'no ready-made function'),
        'SGD': (INSIDE.format('SGD', 'params, lr', 'torch.optim.SGD(params, lr)'), 'no ready-made function'),
        'Momentum': (INSIDE.format('Momentum', 'params, lr, momentum',
                                   'torch.optim.SGD(params, lr, momentum)'), 'no ready-made function'),
        'Dataset': ('import torch\nclass Dataset:\n    def __init__(self, x, y): self.ds = '
                    'torch.utils.data.TensorDataset(x, y)\n    def __len__(self): return len(self.ds)\n'
                    '    def __getitem__(self, i): return self.ds[i]', 'no ready-made function')},
}
