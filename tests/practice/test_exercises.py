"""`check` on the solutions and on wrong ones of every kind; the engine's limits; the progress file. A row of `WRONG` is one wrong
solution: (kind, how it is made, the property that the report must name, a piece of its message, and of where to look)."""
import ast, contextlib, dataclasses, functools, inspect, json, linecache, re, signal, subprocess, sys, threading, time

import pytest, torch
import torch.nn.functional as F
from torch import nn

from backprop13 import backprop, fitting, minibatch
from backprop13.practice import exercises, grading, solutions
from backprop13.practice.exercises import EXERCISES, PAGES, check, hint, progress, progress_file, solution, starter
from backprop13.practice.grading import Caught, Fault, TimeUp, broken, diagnose, no_calls, run, time_limit

nan, inf = float('nan'), float('inf')
CLASSES = [name for name, e in EXERCISES.items() if isinstance(e.solution, type)]
TESTS = [name for name, e in EXERCISES.items() if e.page == '08_tests']
LIMIT = .2


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    "Progress goes to a folder of the test's own"
    monkeypatch.setenv('XDG_DATA_HOME', str(tmp_path))
    return tmp_path


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
    "A pair is a change of the solution, a list several; a text with `def` or `class` is the whole of it, any other text a body"
    if isinstance(how, tuple): how = [how]
    if isinstance(how, list):
        text = solution(name)
        for old, new in how:
            assert text.count(old) == 1, f'{name}: {old!r} stands {text.count(old)} times in its solution, wanted once; change the row'
            text = text.replace(old, new)
        return text
    return how if how.startswith(('def ', 'class ', '@', 'import ')) else bodies(name, how)

def verdict(name, text, **names): return check(cell(name, text, **names), record=False)


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
CHECK = 'check_grads(dict(inp=inp.g, w=w.g, b=b.g), want)'

WRONG = {
    'matmul': [
        ('the wrong axis', ('.sum(0)', '.sum(1)'), 'exception', 'out[i] = (a[i][:, None]*b).sum(1)'),
        ('a dtype of its own for PyTorch',
         'torch.set_default_dtype(torch.float64); return torch.zeros(len(a), b.shape[1]) + (a[:, :, None]*b).sum(1)',
         'dtype', 'float64'),
        ('a ready-made one in a helper',
         'def helper(p, q):\n    return p.mm(q)\ndef matmul(a, b): return helper(a, b)', 'no ready-made function',
         'in `helper`, in line 2 of its cell: `return p.mm(q)`'),
        ('the wrong sign', ('= (a', '= -(a'), 'value', 'every sign is the opposite'),
        ('a mean', ('.sum(0)', '.mean(0)'), 'value', '3 times too small'),
        ('the last row is left out', ('range(len(a))', 'range(len(a) - 1)'), 'value', '4 of 8 numbers are right'),
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
         'no ready-made function', '`matmul`')],
    'relu': [
        ('the other side', ('x <= 0', 'x > 0'), 'value', ''),
        ('half of it, in float64', 'torch.set_default_dtype(torch.float64); return (x + x.abs())/2', 'stability',
         'infinite'),
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
        ('NumPy', 'return x.clamp(min=0).numpy()', 'type', 'over to NumPy'),
        ('None', ('return ', ''), 'type', 'None'),
        ('drops axes', 'return x.clamp(min=0).squeeze()', 'batch of one', ''),
        ('ready-made', 'return torch.relu(x)', 'no ready-made function', '`relu`'),
        ('a ready-made layer', 'return torch.nn.ReLU()(x)', 'no ready-made function', ''),
        ('a ready-made one, whose refusal it catches',
         'try: return torch.relu(x)\n    except BaseException: return x*(x > 0)', 'no ready-made function', '')],
    'lin': [
        ('no bias', 'return x @ w', 'value', 'every row is off by the same numbers'),
        ('minus the bias', 'return x @ w - b', 'value', ''),
        ('the sum of the biases', 'return x @ w + b.sum()', 'value', ''),
        ('transposed weights', 'return x @ w.t() + b', 'exception', 'line 6'),
        ('transposed weights if square', 'return x @ (w.t() if len(w) == len(b) else w) + b', 'value', 'square'),
        ('a bias for each row', 'return x @ w + b[:, None]', 'exception', 'RuntimeError'),
        ('transposed', 'return (x @ w + b).t()', 'shape', '(4, 2), wanted (2, 4)'),
        ('drops axes', 'return (x @ w).squeeze() + b', 'batch of one', ''),
        ('always float32', 'return (x @ w + b).float()', 'dtype', ''),
        ('computes in float32', 'return (x.float() @ w.float() + b.float()).to(x.dtype)', 'dtype', ''),
        ('NumPy', 'return (x @ w + b).numpy()', 'type', 'NumPy'),
        ('changes the weights', 'y = x @ w + b; w += 1; return y', 'inputs unchanged', 'it changes w'),
        ('relu too', 'return (x @ w + b).relu()', 'value', ''),
        ('ready-made', 'return F.linear(x, w.t(), b)', 'no ready-made function', 'linear'),
        ('another ready-made', 'return torch.addmm(b, x, w)', 'no ready-made function', 'addmm')],
    'mse': [
        ('no mean', 'return (output - targ).square().sum()', 'value', '4 times too large'),
        ('divided by the rows', 'return (output - targ).square().sum()/len(targ)', 'value', '2 times too large'),
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
        ('a ready-made layer', 'return torch.nn.MSELoss()(output, targ)', 'no ready-made function', '')],
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
        ('torch.func', 'inp.g = torch.func.grad(F.mse_loss)(inp, targ)', 'no autograd', '')],
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
        ('changes its input', 'inp.g = out.g*(inp > 0); inp.clamp_(min=0)', 'inputs unchanged', 'it changes inp'),
        ('NumPy', 'inp.g = (out.g*(inp > 0)).numpy()', 'type', 'NumPy'),
        ('autograd', 'i = inp.clone().requires_grad_(); inp.g, = torch.autograd.grad(i.relu(), i, out.g)',
         'no autograd', '')],
    'lin_grad': [
        ('no sum over rows', FINISH + 'out.g', 'shape', 'b.g has shape (4, 2), wanted (2,)'),
        ('NumPy, set', FINISH + 'out.g.sum(0).numpy()', 'type', 'over to NumPy', 'Which step'),
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
        ('autograd', 'i = inp.clone().requires_grad_(); (i @ w + b).backward(out.g); inp.g = i.grad', 'no autograd',
         '')],
    'forward_and_backward': [
        ('no 1/n', ('2/out.numel()', '2'), 'gradient', '4 times too large'),
        ('no mask', ('l1.g = l2.g.masked_fill(l1 <= 0, 0)', 'l1.g = l2.g'), 'gradient', ''),
        ('a wrong name in a helper', STEPS.replace('(inp > 0)*out.g', '(inp > 0)*outt.g') + NETWORK, 'exception',
         "name 'outt' is not defined, in `relu_grad`, in line 3 of its cell: `def relu_grad"),
        ('autograd in a helper', STEPS.replace('(inp > 0)*out.g', 'torch.autograd.grad(inp, inp, out.g)') + NETWORK,
         'no autograd', 'in `relu_grad`, in line 3'),
        ('stops half-way', ('lin_grad(inp, l1, w1, b1)', 'pass'), 'gradient', 'was not set'),
        ('no relu', ('relu(l1)', 'l1'), 'value', 'the loss'),
        ('another relu', ('relu(l1)', 'l1.sigmoid()'), 'value', 'the loss'),
        ('the sum of the losses', ('return loss', 'return loss*len(inp)'), 'value', '4 times too large'),
        ('the predictions', ('return loss', 'return out'), 'shape', '(4, 1)'),
        ('a Python number', ('return loss', 'return loss.item()'), 'type', 'a float'),
        ('None', ('return loss', 'pass'), 'type', 'None'),
        ('always float32', ('return loss', 'return loss.float()'), 'dtype', ''),
        ('changes its input', ('return loss', 'targ.zero_(); return loss'), 'inputs unchanged', 'it changes targ'),
        ('at least two', ('/out.numel()', '/max(2, out.numel())'), 'batch of one', ''),
        ('backwards in the wrong order',
         ('lin_grad(l2, out, w2, b2)', 'lin_grad(inp, l1, w1, b1)'), 'exception', 'lin_grad(inp')],
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
        ('sets the biases', ('add_grad(self.b, out.g.sum(0))', 'self.b.g = out.g.sum(0)'), 'gradients add up', 'b.g'),
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
        ('one argument more', ('def bwd(self, out, inp)', 'def bwd(self, out, inp, g)'), 'signature', 'Lin.bwd'),
        ('drops axes', ('inp.t()', 'inp.squeeze().t()'), 'batch of one', ''),
        ('changes its input', ('out.g.sum(0))', 'out.g.sum(0)); inp.zero_()'), 'inputs unchanged', 'it changes inp')],
    'Sigmoid': [
        ('the wrong sign', ('(-inp)', 'inp'), 'value', ''),
        ('changes its output', ('add_grad(inp, out.g*out*(1 - out))', 'out *= 1 - out; add_grad(inp, out*out.g)'),
         'inputs unchanged', 'it changes out: '),
        ('changes the gradient that arrives',
         ('add_grad(inp, out.g*out*(1 - out))', 'out.g *= out*(1 - out); add_grad(inp, out.g)'),
         'inputs unchanged', 'it changes out.g: '),
        ('NumPy inside', ('1/(1 + (-inp).exp())', '1/(1 + __import__("numpy").exp(-inp))'), 'type', 'over to NumPy'),
        ('overflows', ('1/(1 + (-inp).exp())', 'inp.exp()/(1 + inp.exp())'), 'stability', 'nan'),
        ('no chain rule', ('out.g*out', 'out'), 'gradient', ''),
        ('half of the slope', ('*(1 - out)', ''), 'gradient', ''),
        ('the slope has the wrong sign', ('1 - out', 'out - 1'), 'gradient', 'every sign is the opposite'),
        ('the slope of the input', ('out*(1 - out)', 'inp*(1 - inp)'), 'gradient', ''),
        ('remembers its last call alone',
         'class Sigmoid(Module):\n    def forward(self, x):\n        self.s = 1/(1 + torch.exp(-x)); return self.s\n'
         '    def bwd(self, out, x): add_grad(x, self.s*(1 - self.s)*out.g)', 'two calls', ''),
        ('sets', ('add_grad(inp, out.g*out*(1 - out))', 'inp.g = out.g*out*(1 - out)'), 'gradients add up', ''),
        ('walks back nowhere', ('add_grad(inp, out.g*out*(1 - out))', 'pass'), 'gradient', 'inp.g was not set'),
        ('always float32', ('(-inp).exp())', '(-inp).exp()).float()'), 'dtype', ''),
        ('NumPy', ('1/(1 + (-inp).exp())', '(1/(1 + (-inp).exp())).numpy()'), 'type', 'NumPy'),
        ('None', ('return ', ''), 'type', 'None'),
        ('drops axes', ('1/(1 + (-inp).exp())', '(1/(1 + (-inp).exp())).squeeze()'), 'batch of one', ''),
        ('changes its input', ('(1 - out))', '(1 - out)); inp.zero_()'), 'inputs unchanged', 'it changes inp'),
        ('ready-made', ('1/(1 + (-inp).exp())', 'torch.sigmoid(inp)'), 'no ready-made function', 'sigmoid')],
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
        ('changes its weights', ('.sum(0))', '.sum(0)); self.w.zero_()'), 'inputs unchanged', 'it changes w')],
    'Chain': [
        ('forwards on the way back', ('reversed(self.layers)', 'self.layers'), 'exception', 'layer.backward()'),
        ('adds to the list that it is given',
         ('self.layers, self.loss = layers, loss', 'layers.append(loss); self.layers, self.loss = layers[:-1], loss'),
         'inputs unchanged', 'the list of layers, for x (4, 3)'),
        ('backward of the tensor', [('return self.loss(x, targ)', 'self.out = self.loss(x, targ); return self.out'),
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
        ('walks back twice', ('layer.backward()', 'layer.backward(); layer.backward()'), 'gradient', 'times too large'),
        ('always float32', ('return self.loss(x, targ)', 'return self.loss(x, targ).float()'), 'dtype', ''),
        ('refuses one row', ('return self', 'assert len(x) > 1; return self'), 'batch of one', 'AssertionError'),
        ('changes the targets', ('layer.backward()', 'layer.backward()\n        self.loss.args[1].mul_(2)'),
         'inputs unchanged', 'targ'),
        ('the library', ('self.layers, self.loss = layers, loss',
                         'from backprop13.backprop import Model; self.model = Model(*[torch.zeros(3, 3)]*4)'),
         'no ready-made function', 'Model')],
    'logsumexp': [
        ('overflows', 'return x.exp().sum(-1).log()', 'stability', 'infinite'),
        ('NumPy inside', 'np = __import__("numpy"); a = x.max(-1, keepdim=True).values; return a[..., 0] + np.log(np.exp(x - a).sum(-1))', 'type', 'over to NumPy'),
        ('one shift for all', 'm = x.max(); return (x - m).exp().sum(-1).log() + m', 'stability', 'infinite'),
        ('the largest size', 'm = x.abs().max(-1, keepdim=True).values; return (x - m).exp().sum(-1).log() + m[..., 0]', 'stability', ''),
        ('the axis is kept in the shift',
         'm = x.max(-1, keepdim=True).values; return (x - m).exp().sum(-1).log() + m', 'shape', ''),
        ('the axis is kept', 'm = x.max(-1, keepdim=True).values; return (x - m).exp().sum(-1, keepdim=True).log() + m', 'shape', ''),
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
        ('by log-softmax', 'return x[..., 0] - F.log_softmax(x, -1)[..., 0]', 'no ready-made function', 'log_softmax')],
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
        ('one shift for all', 'x = x - x.max(); return x - x.exp().sum(-1, keepdim=True).log()', 'stability', ''),
        ('two axes alone', 'return x - logsumexp(x)[:, None]', 'exception', 'logsumexp(x)[:, None]'),
        ('always float32', 'return (x - logsumexp(x)[..., None]).float()', 'dtype', ''),
        ('in place', 'x -= logsumexp(x)[..., None]; return x', 'inputs unchanged', 'it changes x'),
        ('drops axes', 'return (x - logsumexp(x)[..., None]).squeeze()', 'batch of one', ''),
        ('NumPy', 'return (x - logsumexp(x)[..., None]).numpy()', 'type', 'NumPy'),
        ('ready-made', 'return x.log_softmax(-1)', 'no ready-made function', 'log_softmax'),
        ('a ready-made softmax', 'return torch.softmax(x, -1).log()', 'no ready-made function', 'softmax'),
        ('a ready-made logsumexp', 'return x - x.logsumexp(-1, keepdim=True)', 'no ready-made function', 'logsumexp')],
    'nll': [
        ('the wrong sign', 'return log_probs[range(len(targ)), targ].mean()', 'value', 'sign is the opposite'),
        ('one-hot rows', 'return -(F.one_hot(targ, log_probs.shape[1])*log_probs).sum()/len(targ)',
         'stability', 'nan', '0 times infinity'),
        ('a new tensor', 'return -torch.stack([torch.tensor(float(row[t])) for row, t in zip(log_probs, targ)]).to(log_probs).mean()', 'gradient', 'autograd has lost',
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
        ('ready-made', 'return F.nll_loss(log_probs, targ)', 'no ready-made function', 'nll_loss')],
    'cross_entropy': [
        ('no softmax', 'return nll(logits, targ)', 'value', ''),
        ('walks back', 'loss = nll(log_softmax(logits), targ)\n    if loss.requires_grad: loss.backward()\n    return loss', 'gradient',
         'a second time (or directly access saved tensors after they have already been freed), for ',
         'whoever calls you'),
        ('the wrong sign', 'return -nll(log_softmax(logits), targ)', 'value', 'sign is the opposite'),
        ('no logarithm', 'return nll(log_softmax(logits).exp(), targ)', 'value', ''),
        ('along the columns', 'return nll(log_softmax(logits.t()).t(), targ)', 'value', ''),
        ('a sum', 'return nll(log_softmax(logits), targ)*len(targ)', 'value', '4 times too large'),
        ('no mean', 'return -log_softmax(logits)[range(len(targ)), targ]', 'shape', ''),
        ('overflows', 'p = logits.exp(); return nll((p/p.sum(-1, keepdim=True)).log(), targ)', 'stability', 'nan'),
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
        ('a parameter of another name', ('p -= lr*p.grad', 'p -= lr*p.g'), 'exception', "no attribute 'g'", '`.grad`'),
        ('tensors', ('loss.item()', 'loss.detach()'), 'type', 'the list has a float64 tensor of shape () in it', ''),
        ('a tuple', ('return losses', 'return tuple(losses)'), 'type', 'it returns a tuple, wanted a list, for '),
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
        ('freezes', ('return losses', 'model.requires_grad_(False); return losses'), 'value', 'wants gradients'),
        ('changes its input', ('return losses', 'x.mul_(2); return losses'), 'inputs unchanged', 'it changes x'),
        ('wants two rows', ('losses = []', 'losses = []; x[1]'), 'batch of one', 'IndexError'),
        ('torch.optim', ('losses = []', 'losses = []; torch.optim.SGD(model.parameters(), lr)'),
         'no ready-made function', '')],
    'SGD': [
        ('climbs', ('p -= self', 'p += self'), 'value', 'every sign is the opposite'),
        ('.g', ('p.grad is not None: p -= self.lr*p.grad', 'p.grad is not None: p -= self.lr*p.g'),
         'exception', "no attribute 'g'", '`.grad`'),
        ('does not move', ('p -= self.lr*p.grad', 'pass'), 'value', 'all of it is zero'),
        ('no learning rate', ('self.lr*p.grad', 'p.grad'), 'value', '10 times too large'),
        ('always the same rate', ('self.lr*p.grad', '.1*p.grad'), 'value', 'another learning rate'),
        ('signs alone', ('self.lr*p.grad', 'self.lr*p.grad.sign()'), 'value', ''),
        ('moves a copy', ('p -= self.lr*p.grad', 'p = p - self.lr*p.grad'), 'value', 'all of it is zero'),
        ('the first one alone', ('for p in self.params:\n            if', 'for p in self.params[:1]:\n            if'), 'value', 'the move of 0.bias'),
        ('keeps what can be looped over once', ('list(params)', 'params'), 'iterator',
         'model.parameters()', 'looped over'),
        ('watched by autograd', ('@torch.no_grad()\n    ', ''), 'exception', 'RuntimeError'),
        ('wants a gradient', ('if p.grad is not None: ', ''), 'exception', 'a parameter without a gradient'),
        ('forgets nothing', ('for p in self.params: p.grad = None', 'pass'), 'value', 'zero_grad'),
        ('computes in float32', ('p -= self.lr*p.grad',
                                 'p.copy_(p.float() - self.lr*p.grad.float())'), 'value', 'float32'),
        ('no zero_grad', ('def zero_grad', 'def zero'), 'signature', '`zero_grad`'),
        ('ready-made', 'class SGD(torch.optim.SGD):\n    def step(self): super().step()\n    def zero_grad(self): super().zero_grad()',
         'no ready-made function', '')],
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
         'no ready-made function', '')],
    'Dataset': [
        ('one less', ('return len(self.x)', 'return len(self.x) - 1'), 'value', 'the length'),
        ('a list for a slice', ('return self.x[i], self.y[i]',
                                'return list(zip(self.x[i], self.y[i])) if isinstance(i, slice) else (self.x[i], self.y[i])'),
         'type', '`ds[i]` is a list, wanted a pair (x, y), a tuple, for a slice'),
        ('a length of tensors alone', ('len(self.x)', 'self.x.shape[0]'), 'exception',
         'a list of words', 'of another kind'),
        ('the other way round', ('self.x[i], self.y[i]', 'self.y[i], self.x[i]'), 'shape', 'its x'),
        ('always the first target', ('self.y[i]', 'self.y[0]'), 'value', 'its y'),
        ('no negative numbers', ('self.x[i], self.y[i]',
                                 'self.x[i], self.y[i if isinstance(i, slice) else abs(i)]'), 'value', 'the last item'),
        ('numbers alone', ('self.x[i], self.y[i]', 'self.x[int(i)], self.y[int(i)]'), 'exception', 'a slice'),
        ('a list', ('self.x[i], self.y[i]', 'self.x[i].tolist(), self.y[i]'), 'type', 'a list'),
        ('a Python number', ('self.y[i]', 'int(self.y[i])'), 'type', ' int'),
        ('NumPy', ('self.x[i], ', 'self.x[i].numpy(), '), 'type', 'NumPy'),
        ('float targets', ('self.y[i]', 'self.y[i].float()'), 'dtype', 'its y'),
        ('an axis too much', ('self.x[i],', 'self.x[i][None],'), 'shape', 'its x'),
        ('changes its input', ('self.x, self.y = x, y', 'self.x, self.y = x.clone(), y; x.zero_()'),
         'inputs unchanged', 'it changes x'),
        ('no length', ('def __len__', 'def length'), 'signature', '__len__'),
        ('ready-made', 'class Dataset(torch.utils.data.TensorDataset):\n    def __init__(self, x, y): super().__init__(x, y)',
         'no ready-made function', 'TensorDataset')],
    'Loader': [
        ('rounds down', ('-(-len(self.ds)//self.bs)', 'len(self.ds)//self.bs'), 'value', 'len(loader)'),
        ('shuffles the dataset itself',
         [('order = torch.randperm(n, generator=self.generator)', 'r = torch.randperm(n, generator=self.generator); '
         'self.ds.x = self.ds.x[r]; self.ds.y = self.ds.y[r]')], 'inputs unchanged', 'it changes ds.x: '),
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
         'no ready-made function', 'DataLoader')],
    'test_lin_grad': [
        ('asserts nothing', (CHECK, 'pass'), 'bugs killed', 'finds 1 of 8'),
        ('refuses what einsum gives', (CHECK, CHECK + "; assert lin_grad.__name__ == 'lin_grad'"),
         'right one accepted', 'for a right one, by einsum'),
        ('does not look at the weights',
         (CHECK, 'check_grads(dict(inp=inp.g, b=b.g), dict(inp=want["inp"], b=want["b"]))'), 'bugs killed', 'weights'),
        ('one row', ('(4, 3, 2), (3, 3, 3), (1, 2, 3)', '[(1, 3, 2)]'), 'bugs killed', 'mean'),
        ('no square', ('(3, 3, 3), ', ''), 'bugs killed', 'finds 7 of 8 bugs; one that it does not find: square'),
        ('calls once', ('range(2)', 'range(1)'), 'bugs killed',
         'finds 7 of 8 bugs; one that it does not find: a second call'),
        ('does not look at out.g', ('assert torch.equal(out.g, g)', 'break'), 'bugs killed', 'finds 6 of 8'),
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
         'bugs killed', 'finds 1 of 8'),
        ('one column', ('(4, 1), (3, 2)', '[(4, 1)]'), 'bugs killed',
         'finds 7 of 8 bugs; one that it does not find: it is divided by the rows'),
        ('a gradient of 1', ('out.g = torch.tensor(3.)\n        want = 3*', 'want = '),
         'bugs killed', 'the gradient that arrives'),
        ('walks back once', ('times in 1, 2', 'times in [1]'), 'bugs killed', 'it sets the gradient'),
        ('does not look at its input', ('assert torch.equal(inp, before)', 'break'), 'bugs killed', 'finds 6 of 8'),
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
        ('asserts nothing', 'log_softmax(torch.randn(3, 3))', 'bugs killed', 'finds 0 of 8'),
        ('small scores', SOFT.format('torch.randn(3, 3), torch.randn(4, 2)', ''), 'bugs killed',
         'large scores overflow'),
        ('a square of equal columns', SOFT.format('1000*torch.randn(1, 1), torch.ones(3, 3)', ''), 'bugs killed', ''),
        ('shapes alone', 'x = torch.randn(4, 2)\n    assert log_softmax(x).shape == x.shape', 'bugs killed', ''),
        ('does not look at its input', ('assert torch.equal(x, before)', 'pass'), 'bugs killed',
         'finds 7 of 8 bugs; one that it does not find: it changes'),
        ('lax', SOFT.format('torch.randn(3, 3), 1000*torch.randn(4, 2)', ', rtol=9, atol=9'), 'bugs killed', ''),
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
         'bugs killed', 'finds 0 of 8'),
        ('the same model, by another name',
         ('theirs.load_state_dict(mine.state_dict())', 'theirs = mine'), 'right one accepted', '', 'each its own'),
        ('a falling loss', 'x = torch.randn(8, 3)\n    y = (x[:, 0] > 0).long()\n    losses = train(nn.Linear(3, 2), x, y, 9, 4, .5)\n'
         '    assert losses[-1] < losses[0]', 'bugs killed', ''),
        ('parameters alone', ('torch.testing.assert_close(torch.tensor(got), torch.tensor(losses))', 'pass'),
         'bugs killed', 'the last loss'),
        ('lax', [('close(p, q)', 'close(p, q, rtol=9, atol=9)'),
                 ('torch.tensor(losses))', 'torch.tensor(losses), rtol=9, atol=9)')],
         'bugs killed', ''),
        ('no short batch', [('torch.randn(10, 3), torch.arange(10)', 'torch.randn(8, 3), torch.arange(8)'),
                            ('[0, 4, 8]*2', '[0, 4]*2')],
         'bugs killed', 'finds 7 of 8 bugs; one that it does not find: a short last batch'),
        ('one epoch', [('[0, 4, 8]*2', '[0, 4, 8]'), ('x, y, 2, 4', 'x, y, 1, 4')],
         'bugs killed', 'finds 7 of 8 bugs; one that it does not find: it stops after one epoch'),
        ('a rate of 1', [('lr=.5', 'lr=1.'), ('4, .5)', '4, 1.)')], 'bugs killed',
         'finds 7 of 8 bugs; one that it does not find: the learning rate'),
        ('one label', ('torch.arange(10)//3 % 2', 'torch.zeros(10).long()'), 'bugs killed',
         'finds 7 of 8 bugs; one that it does not find: the labels'),
        ('another rate', ('lr=.5', 'lr=.4'), 'right one accepted', ''),
        ('the same model twice', ('mine, theirs = model(), model()', 'mine = theirs = model()'),
         'right one accepted', ''),
        ('models that differ', ('theirs.load_state_dict(mine.state_dict())', 'pass'), 'right one accepted', ''),
        ('wants no last batch', ('[0, 4, 8]', '[0, 4]'), 'right one accepted', ''),
        ('always fails', 'assert False', 'right one accepted', 'assert False'),
        ('calls it wrongly', 'train()', 'exception', 'TypeError')],
}
KINDS = {name: [row[0] for row in rows] for name, rows in WRONG.items()}
ROWS = [pytest.param(name, *row[1:], *['']*(5 - len(row)), id=f'{name}: {row[0]}')
        for name, rows in WRONG.items() for row in rows]
each = pytest.mark.parametrize('name', EXERCISES)


def lines_of(name):
    "The statements of the solution's bodies that are long enough to tell something, without blanks"
    found = set()
    for o in ast.walk(ast.parse(solution(name))):
        if isinstance(o, (ast.Assign, ast.AugAssign, ast.Return, ast.Expr)) and not isinstance(getattr(o, 'value', None), (ast.Constant, ast.Name)):
            found.add(''.join(ast.unparse(o).split()))
    return {line for line in found if len(line) > 12}

def given_away(name, said, written=''):
    "The statements of the solution that stand in what is said, and not in what the learner wrote"
    said, written = ''.join(said.split()), ''.join(written.split())
    return [line for line in lines_of(name) if line in said and line not in written]


@pytest.mark.parametrize('name, how, property, piece, advice', ROWS)
def test_wrong_one_is_told_its_property(name, how, property, piece, advice, monkeypatch):
    text = text_of(name, how)
    monkeypatch.setitem(EXERCISES, name,
                        dataclasses.replace(EXERCISES[name], seconds=LIMIT if property == 'time' else 10))
    report = verdict(name, text)
    assert (report.passed, report.property) == (False, property), report
    assert piece in report.message and advice in grading.look(report.fault), report
    assert not given_away(name, repr(report), text), report
    assert 'Look: ' in repr(report) and 'Look: ' in report._repr_markdown_()


def test_each_exercise_has_eight_kinds_of_its_own():
    assert list(WRONG) == list(EXERCISES), 'rows that one has and the other has not, or in another order'
    for name, kinds in KINDS.items(): assert len(set(kinds)) == len(kinds) >= 8, name
    for name, rows in WRONG.items():
        assert len({row[2] for row in rows}) >= (2 if name in TESTS else 4), f'{name}: too few properties'


# ---- what is asked of every exercise ----
@each
def test_solution_passes(name, home):
    report = verdict(name, solution(name))
    assert report.passed and report.property == report.message == '' and not report.notes, report
    assert len(report.held) == len(list(EXERCISES[name].trials()))
    assert 'is right' in repr(report) and not list(home.iterdir())

@each
def test_starter_is_empty(name):
    for text in starter(name), bodies(name, 'pass'), bodies(name, 'return'):
        assert verdict(name, text).property == 'empty'

@each
def test_signature(name):
    wanted = EXERCISES[name].solution
    def told(text): return (r := verdict(name, text)).property, r.message
    if name not in CLASSES:
        for text in f'def {name}(): return 1', f'def {name}({", ".join("abcdefghi")}): return 1', f'class {name}: pass':
            assert told(text)[0] == 'signature', text
        names = list(inspect.signature(wanted).parameters)
        if names[1:]: assert told(f'def {name}({", ".join(names[::-1])}): return 1')[0] == 'signature'
        return
    for text in f'def {name}(*args): return 1', f'class {name}: pass': assert told(text)[0] == 'signature', text
    for k in grading._methods(wanted):
        property, message = told(text_of(name, (f'def {k}(', f'def {k}2(')))
        assert property == 'signature' and k in message
    for k in grading._methods(wanted):
        property, message = told(re.sub(rf'def {k}\(self',
                                        f'def {k}(self, one, two, three, four, five', solution(name)))
        assert property == 'signature' and 'three' in message

@each
def test_endless_loop_is_stopped(name, monkeypatch):
    monkeypatch.setitem(EXERCISES, name, dataclasses.replace(EXERCISES[name], seconds=LIMIT))
    start = time.monotonic()
    report = verdict(name, 'def endless():\n    while True: pass\n' + bodies(name, 'return endless()'))
    assert report.property == 'time' and f'{LIMIT:g} seconds' in report.message and '`while True: pass`' in report.message, report
    assert time.monotonic() - start < grading.SECONDS

@pytest.mark.parametrize('name', ['relu', 'lin_grad', 'test_mse'])
def test_endless_loop_that_catches_everything(name, monkeypatch):
    "Stopped, and told, though it goes on rightly after that"
    monkeypatch.setitem(EXERCISES, name, dataclasses.replace(EXERCISES[name], seconds=LIMIT))
    text = before(name, 'try:', '    while True: pass', 'except: pass')
    assert verdict(name, text).property == 'time'

@each
def test_exception_shows_the_learners_line(name):
    for line, says in ('raise ValueError("mine")', 'ValueError: mine'), ('sys.exit("bye")', 'SystemExit: bye'), ('next(iter(()))', 'StopIteration'):
        report = verdict(name, bodies(name, line), sys=sys)
        assert report.property == 'exception'
        assert says in report.message and f'{line}`' in report.message and re.search(r'line \d+',
            report.message), report

@each
def test_prints_and_plots(name, capfd):
    plt = pytest.importorskip('matplotlib.pyplot')
    mine = plt.figure()
    try:
        text = before(name, 'print("noise"*9)', 'print("noise", file=sys.stderr)', 'plt.figure(); plt.show()')
        report = verdict(name, text, plt=plt, sys=sys)
        assert report.passed, report
        assert re.search(r'prints \d+ characters', repr(report)) and re.search(r'draws \d+ figure', repr(report))
        assert plt.get_fignums() == [mine.number] and capfd.readouterr() == ('', '')
    finally: plt.close(mine)

@each
def test_librarys_own(name):
    "A function or class that hands all calls on to the solution"
    wanted = EXERCISES[name].solution
    text = f'def {name}(*args): return theirs(*args)'
    if name in CLASSES:
        text = f'class {name}({", ".join(b.__name__ for b in wanted.__bases__)}):\n' + '\n'.join(
            f'    def {k}(self, *args, **kw): return theirs.{k}(self, *args, **kw)' for k in grading._methods(wanted))
    report = verdict(name, text, theirs=wanted)
    assert report.property == 'no ready-made function' and name in report.message, report
    assert check(wanted, record=False).property == 'no ready-made function'

@pytest.mark.parametrize('name', [name for name, e in EXERCISES.items() if not e.autograd])
def test_autograd_is_refused(name):
    line = 'torch.ones(1, requires_grad=True).sum().backward()'
    report = verdict(name, before(name, line))
    assert report.property == 'no autograd' and 'backward' in report.message
    # it was called all the same
    assert verdict(name, before(name, f'try: {line}', 'except: pass')).property == 'no autograd'

def test_autograd_is_forbidden_for_gradients_alone():
    assert [name for name, e in EXERCISES.items() if not e.autograd] == \
        [name for name, e in EXERCISES.items() if e.page in ('03_gradients', '04_modules')]
    assert verdict('train', before('train', 'torch.ones(1, requires_grad=True).sum().backward()')).passed

@pytest.mark.parametrize('name', ['lin', 'Sigmoid', 'logsumexp', 'train', 'Loader', 'test_lin_grad'])
def test_verdict_is_the_same_twice(name):
    "With random numbers, and with warnings too"
    for text in (solution(name), *(text_of(name, row[1]) for row in WRONG[name][:4]),
                 before(name, 'import warnings; warnings.warn("careful")'),
                 bodies(name, 'return torch.rand(2, 4)')):
        f = cell(name, text)
        assert repr(check(f, record=False)) == repr(check(f, record=False)), text

@each
def test_hints_and_task(name):
    e = EXERCISES[name]
    assert e.hints and e.task.endswith('.') and 2 <= len(re.findall(r'[.?](?= |$)', e.task)) <= 4 and 5 <= e.minutes <= 30
    assert not given_away(name, ' '.join([*e.hints, e.task]), 'lin_grad(inp, out, w, b)' if name in TESTS else '')

@each
def test_wanted_does_not_come_from_the_solution(name, monkeypatch):
    "With a solution that is spoilt, a right one still passes, and a wrong one still fails"
    text = solution(name)
    wrong = next(row for row in WRONG[name] if row[2] not in ('time', 'no ready-made function', 'signature'))
    texts, spoilt = [text, text_of(name, wrong[1])], cell(name, text)
    if name in CLASSES:
        for k in grading._methods(spoilt): setattr(spoilt, k, lambda *args: 13)
    else: spoilt.__code__ = (lambda *args: 13).__code__
    monkeypatch.setitem(EXERCISES, name, dataclasses.replace(EXERCISES[name], solution=spoilt))
    right, bad = (cell(name, o) for o in texts)
    monkeypatch.setattr(grading, 'check_signature', lambda *args: None)      # the spoilt one has another
    assert check(right, record=False).passed and check(bad, record=False).property == wrong[2]

@each
def test_trials_are_made_anew(name):
    "What a learner's code changes reaches no other trial and no other check"
    def state(trials): return repr([(t.property, t.what,
                                     {k: v.state_dict() if isinstance(v, nn.Module) else v for k, v in t.inputs.items()
                                                          if not callable(v) or isinstance(v, nn.Module)})
                                                          for t in trials])
    was = state(EXERCISES[name].trials())
    for row in WRONG[name]:
        if row[2] in ('inputs unchanged', 'value'): verdict(name, text_of(name, row[1]))
    assert state(EXERCISES[name].trials()) == was

@pytest.mark.parametrize('name', [name for name in EXERCISES if name not in TESTS])
def test_passes_whatever_is_set(name):
    "Under no_grad, with another default dtype; and neither is changed"
    with torch.no_grad():
        if name != 'train': assert verdict(name, solution(name)).passed        # whose loop needs autograd
        assert not torch.is_grad_enabled()
    torch.set_default_dtype(torch.float64)
    try: assert verdict(name, solution(name)).passed
    finally: torch.set_default_dtype(torch.float32)

def test_default_dtype_reaches_no_trial():
    "Of two that are alike but for it, neither passes; and it is as it was"
    torch.set_default_dtype(torch.float64)
    try:
        report = verdict('relu', bodies('relu', 'return (x + x.abs())/2'))
        assert report.property == 'stability' and torch.get_default_dtype() == torch.float64, report
    finally: torch.set_default_dtype(torch.float32)
    verdict('relu', bodies('relu', 'torch.set_default_dtype(torch.float64); return x'))
    assert torch.get_default_dtype() == torch.float32


# ---- right ones in other styles ----
RIGHT = [
    ('matmul', 'three loops', '''c = torch.zeros(len(a), b.shape[1], dtype=a.dtype)
    for i in range(len(a)):
        for j in range(b.shape[1]):
            for k in range(len(b)): c[i, j] += a[i, k]*b[k, j]
    return c'''),
    ('matmul', 'broadcasting', 'return (a[:, :, None]*b).sum(1)'),
    ('matmul', 'outer products', 'return sum(torch.outer(a[:, k], b[k]) for k in range(len(b)))'),
    ('matmul', 'lists', 'return torch.tensor([[sum(p*q for p, q in zip(r, c)) for c in b.t().tolist()] for r in a.tolist()], dtype=a.dtype)'),
    ('relu', 'where', 'return torch.where(x > 0, x, 0)'),
    ('relu', 'a product', 'return x*(x > 0)'),
    ('relu', 'a clone', 'y = x.clone(); y[y < 0] = 0; return y'),
    ('relu', 'recursion', 'return torch.stack([relu(v) for v in x]) if x.ndim else x if x > 0 else 0*x'),
    ('lin', 'any names', 'def lin(inputs:torch.Tensor, weights, bias=None, *rest, **more) -> torch.Tensor: return inputs.mm(weights).add(bias)'),
    ('lin', 'a decorator', '@torch.no_grad()\ndef lin(x, w, b): return torch.einsum("ij,jk->ik", x, w) + b'),
    ('lin', 'any arguments', 'def lin(*args): return args[0] @ args[1] + args[2]'),
    ('mse', 'a loop', 'return sum((p - q)**2 for p, q in zip(output.flatten(), targ.flatten()))/output.numel()'),
    ('mse', 'a norm', 'return (output - targ).norm()**2/output.numel()'),
    ('mse_grad', 'in place on a tensor of its own',
     'd = inp - targ; d *= 2; d /= d.numel(); inp.g = d; return f"{inp.g}"'),
    ('relu_grad', 'a copy', 'inp.g = out.g.clone(); inp.g[inp <= 0] = 0'),
    ('relu_grad', 'by the output', 'inp.g = out.g*(out > 0)'),
    ('lin_grad', 'einsum', 'inp.g = torch.einsum("ij,kj->ik", out.g, w); w.g = torch.einsum("bi,bj->ij", inp, out.g); b.g = torch.einsum("ij->j", out.g)'),
    ('lin_grad', 'an outer product for each row',
     'inp.g = out.g @ w.T; w.g = (inp[:, :, None]*out.g[:, None]).sum(0); b.g = sum(out.g)'),
    ('forward_and_backward', 'helpers of its own', STEPS + NETWORK),
    ('Lin', 'other names and more of them', '''class Lin(Module):
    def __init__(self, weights, biases, name='lin'):
        super().__init__()
        self.weights, self.biases, self.name, self.calls = weights, biases, name, 0
    def forward(self, x):
        self.calls += 1
        return x @ self.weights + self.biases
    def bwd(self, out, *args):
        x = args[0]
        for t, g in (x, out.g @ self.weights.t()), (self.weights, x.t() @ out.g), (self.biases, out.g.sum(0)): add_grad(t, g)'''),
    ('Sigmoid', 'lambdas', 'class Sigmoid(Module):\n    forward = lambda self, x: (1 + (-x).exp())**-1\n'
     '    bwd = lambda self, out, x: add_grad(x, out.g*(out - out**2))'),
    ('Sigmoid', 'a hyperbolic tangent', ('1/(1 + (-inp).exp())', 'torch.tanh(inp/2)/2 + .5')),
    ('Scale', 'einsum', ('(out.g*inp).sum(0)', 'torch.einsum("ij,ij->j", out.g, inp)')),
    ('Chain', 'a Module', 'class Chain(Module):\n    def __init__(self, layers, loss): self.parts = [*layers, loss]\n'
     '    def forward(self, x, targ):\n        for o in self.parts[:-1]: x = o(x)\n        return self.parts[-1](x, targ)\n'
     '    def backward(self): [o.backward() for o in self.parts[::-1]]'),
    ('logsumexp', 'amax', 'm = x.amax(-1, keepdim=True); return ((x - m).exp().sum(-1, keepdim=True).log() + m).squeeze(-1)'),
    ('logsumexp', 'a sorted row',
     'm = x.sort(-1).values[..., -1:]; return torch.log(torch.sum(torch.exp(x - m), dim=-1)) + m[..., 0]'),
    ('log_softmax', 'a helper of its own', '''def logsumexp(x):
    m = x.max(-1).values
    return m + (x - m[..., None]).exp().sum(-1).log()
def log_softmax(x):
    x = x - x.amax(-1, keepdim=True)
    return x - logsumexp(x).unsqueeze(-1)'''),
    ('log_softmax', 'in one step',
     'y = x - x.max(-1, keepdim=True)[0]; return y - y.exp().sum(-1, keepdim=True).log()'),
    ('nll', 'gather', 'return -log_probs.gather(1, targ[:, None]).mean()'),
    ('mse_grad', 'other names', 'def mse_grad(x, y, scale=2.): x.g = scale*(x - y)/x.numel()'),
    ('nll', 'a loop', 'return -sum(row[t] for row, t in zip(log_probs, targ))/len(targ)'),
    ('cross_entropy', 'in one step', 'm = logits.max(1, keepdim=True).values; s = logits - m\n'
     '    return (s.exp().sum(1).log() - s[torch.arange(len(targ)), targ]).mean()'),
    ('train', 'split and zip', '''losses = []
    for _ in range(epochs):
        for xb, yb in zip(x.split(bs), y.split(bs)):
            loss = F.cross_entropy(model(xb), yb)
            model.zero_grad(); loss.backward(); losses += [float(loss)]
            for p in model.parameters(): p.data.sub_(p.grad, alpha=lr)
    return losses'''),
    ('train', 'NumPy for the losses', ('loss.item()', 'loss.detach().numpy().item()')),
    ('train', 'autograd.grad', ('loss.backward()',
                                'for p, g in zip(model.parameters(), torch.autograd.grad(loss, list(model.parameters()))): p.grad = g')),
    ('SGD', 'zeros', 'class SGD:\n    def __init__(self, params, lr=.1): self.ps, self.lr = [*params], lr\n    def step(self):\n'
     '        for p in filter(lambda p: p.grad is not None, self.ps): p.data -= p.grad*self.lr\n    def zero_grad(self):\n'
     '        for p in self.ps:\n            if p.grad is not None: p.grad.zero_()'),
    ('Momentum', 'a dict', '''class Momentum:
    def __init__(self, params, lr, momentum=.9): self.ps, self.lr, self.m, self.moves = list(params), lr, momentum, {}
    def step(self):
        with torch.no_grad():
            for p in self.ps:
                if p.grad is None: continue
                self.moves[p] = self.m*self.moves.get(p, 0) + p.grad
                p.sub_(self.lr*self.moves[p])
    def zero_grad(self):
        for p in self.ps: p.grad = None'''),
    ('Dataset', 'a dataclass', 'import dataclasses\n@dataclasses.dataclass\nclass Dataset:\n    x: torch.Tensor\n    y: torch.Tensor\n'
     '    def __len__(self): return len(self.y)\n    def __getitem__(self, key): return tuple(t[key] for t in (self.x, self.y))'),
    ('Loader', 'other names', [('shuffle:bool=False', 'mix=False'),
                               ('generator:torch.Generator=None', 'gen=None, *more'),
     ('self.shuffle, self.generator = shuffle, generator', 'self.shuffle, self.generator = mix, gen')]),
    ('Loader', 'split', ('for i in range(0, n, self.bs):\n            yield self.ds[order[i:i+self.bs]]',
                         'yield from map(self.ds.__getitem__, order.split(self.bs))')),
    ('Loader', 'stacked items', ('yield self.ds[order[i:i+self.bs]]',
                                 'yield tuple(map(torch.stack, zip(*[self.ds[int(j)] for j in order[i:i+self.bs]])))')),
    ('test_lin_grad', 'autograd by itself', '''for n, m, k in (3, 3, 3), (5, 2, 4):
        x, w, b = [torch.randn(*s, requires_grad=True) for s in ((n, m), (m, k), (k,))]
        y = x @ w + b
        g = torch.randn(n, k); y.g = g.clone()
        y.backward(g)
        for _ in range(2):
            lin_grad(x, y, w, b)
            for t in (x, w, b): torch.testing.assert_close(t.g, t.grad)
            assert (y.g == g).all()'''),
    ('test_log_softmax', 'probabilities add up', '''for x in torch.randn(3, 3), 300*torch.randn(4, 2), torch.tensor([[0., 1.], [-500., -501.]]):
        was = x.clone()
        y = log_softmax(x)
        if not torch.allclose(y.exp().sum(-1), torch.ones(len(x))): raise ValueError("not 1")
        assert torch.allclose(y - y[:, :1], was - was[:, :1], atol=1e-3), f"{y}"
        assert x.equal(was)'''),
]

@pytest.mark.parametrize('name, how', [pytest.param(name, how, id=f'{name}: {style}') for name, style, how in RIGHT])
def test_right_one_in_another_style(name, how):
    report = verdict(name, text_of(name, how))
    assert report.passed, report


# ---- gradients that are wanted ----
def by_differences(f, tensors, step=1e-6):
    "The slope of the number `f` along each entry: a step up, a step down, in float64"
    tensors = {k: t.double().clone() for k, t in tensors.items()}
    grads = {}
    for k, t in tensors.items():
        grads[k] = g = torch.zeros_like(t)
        for i in range(t.numel()):
            at, was = t.view(-1), t.view(-1)[i].item()
            at[i] = was + step; up = f(**tensors)
            at[i] = was - step; down = f(**tensors)
            at[i] = was
            g.view(-1)[i] = (up - down)/(2*step)
    return grads

def network(inp, targ, w1, b1, w2, b2, **_): return ((((inp @ w1 + b1).clamp(min=0) @ w2 + b2) - targ)**2).mean()

NUMBERS = {
    'mse_grad': lambda inp, targ: ((inp - targ)**2).mean(),
    'relu_grad': lambda inp, out: (inp.clamp(min=0)*out.g.double()).sum(),
    'lin_grad': lambda inp, out, w, b: ((inp @ w + b)*out.g.double()).sum(),
    'forward_and_backward': network,
    'Lin': lambda inp, g, w, b, times=1, **_: times*((inp @ w + b)*g).sum(),
    'Sigmoid': lambda inp, g, times=1, **_: times*(g/(1 + (-inp).exp())).sum(),
    'Scale': lambda inp, g, w, times=1, **_: times*(inp*w*g).sum(),
    'Chain': lambda x, layers, **kw: network(x, **kw) if layers == 3
    else ((x @ kw['w1'] + kw['b1'] - kw['targ'])**2).mean()}

@pytest.mark.parametrize('name', NUMBERS)
def test_wanted_gradients_agree_with_differences(name):
    seen = 0
    for trial in EXERCISES[name].trials():
        want = {k[:-2]: g for k, g in EXERCISES[name].want(**trial.inputs).items() if k.endswith('.g') and k != 'out.g'}
        kink = name == 'relu_grad' and (trial.inputs['inp'] == 0).any()
        if kink or trial.property == 'stability': continue
        def f(**tensors): return NUMBERS[name](**{**{k: v.double() if isinstance(v, torch.Tensor)
                and not hasattr(v, 'g') else v
                                                     for k, v in trial.inputs.items()}, **tensors})
        got = by_differences(f, {k: trial.inputs[k] for k in want})
        for k, g in want.items():
            assert g.shape == trial.inputs[k].shape and g.dtype == trial.inputs[k].dtype
            torch.testing.assert_close(got[k], g.double(), rtol=1e-4, atol=1e-6)
            seen += 1
    assert seen >= 3
    assert set(NUMBERS) == {name for name, e in EXERCISES.items() if not e.autograd}


# ---- the broken versions ----
BUGS = {'test_lin_grad': (backprop.lin_grad, exercises.LIN_GRAD_BUGS), 'test_mse': (backprop.Mse, exercises.MSE_BUGS),
        'test_log_softmax': (minibatch.log_softmax, exercises.LOG_SOFTMAX_BUGS),
        'test_train': (solutions.train, exercises.TRAIN_BUGS)}
each_bug = pytest.mark.parametrize('test, right, bug',
                                   [pytest.param(test, right, bug, id=f'{right.__name__}: {bug.about}')
                                                       for test, (right, bugs) in BUGS.items() for bug in bugs])

@each_bug
def test_bug_is_killed_alone(test, right, bug):
    assert grading.source(right).count(bug.old) == 1
    mine = cell(test, solution(test))
    with fitting.seeded(13):
        mine(right)
        mine(broken(right, bug.old, bug.old))                 # nothing changed: accepted
        with pytest.raises(Exception) as e: mine(broken(right, bug.old, bug.new))
    assert isinstance(e.value, (AssertionError, RuntimeError, ValueError))

@each_bug
def test_bug_alone_in_the_list_decides(test, right, bug, monkeypatch):
    "The count is of bugs that were really tried: a test that asserts nothing misses this one"
    def trials(): return [grading.Trial(dict(right=right, bugs=[bug]), 'bugs killed', '1 bug')]
    monkeypatch.setitem(EXERCISES, test, dataclasses.replace(EXERCISES[test], trials=trials))
    assert verdict(test, solution(test)).passed
    report = verdict(test, bodies(test, 'str(0)'))
    assert report.property == 'bugs killed' and f'0 of 1 bugs; one that it does not find: {bug.about}' in report.message
    assert not given_away(test, report.message)

def test_bugs_differ():
    assert list(BUGS) == TESTS
    for right, bugs in BUGS.values():
        assert 5 <= len(bugs) <= 10 and len({b.about for b in bugs}) == len(bugs)
        assert len({grading.source(right).replace(b.old, b.new) for b in bugs}) == len(bugs)

def test_time_limit_is_not_spent_on_imports():
    "What PyTorch imports on first use, seconds long and broken for good if it is stopped half-way, is there before a test runs"
    code = """import sys, torch, backprop13.practice.exercises as e
late = 'torch._dynamo' not in sys.modules
next(e.EXERCISES['test_train'].trials())
was = len(sys.modules)
torch.optim.SGD([torch.ones(1)], 1.); torch.testing.assert_close(torch.ones(2), torch.ones(2))
print(late, len(sys.modules) - was)"""
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True).stdout == 'True 0\n'

def test_broken_says_when_the_chapter_was_changed():
    with pytest.raises(ValueError, match='stands 0 times in its source, wanted once'): broken(backprop.relu, 'nowhere', '')
    with pytest.raises(ValueError, match='stands [2-9] times'): broken(backprop.lin_grad, 'out.g', '')


# ---- whatever is passed ----
class Callable:
    __name__ = 'lin'
    def __call__(self, x, w, b): return x @ w + b

class Named:
    def __init__(self, name): self.__name__ = name
    def __repr__(self): raise ValueError('no repr')

class Refuses:
    def __getattr__(self, name): raise RuntimeError('no attributes')

class Unspeakable(Exception):
    def __str__(self): raise ValueError('no words')

def raises_unspeakable(x, w, b): raise Unspeakable
raises_unspeakable.__name__ = 'lin'

ANYTHING = [3, 2.5, None, True, '', 'lin', 'nothing', b'lin', [], {}, object(), torch.ones(2),
            torch, nn.ReLU(), nn.Linear, int, type, len, print,
            Exception, (lambda x, w, b: x), torch.matmul, torch.relu, torch.logsumexp, F.relu,
            F.mse_loss, [].append, Callable(), Callable,
            functools.partial(backprop.lin), functools.update_wrapper(functools.partial(backprop.lin), backprop.lin),
            functools.lru_cache(backprop.lin), torch.no_grad()(backprop.lin), Named('lin'),
            Named(3), Named([]), Named('lin'*99), Refuses(),
            raises_unspeakable, EXERCISES, EXERCISES['lin'], check]

@pytest.mark.parametrize('o', [pytest.param(o, id=f'{i} {type(o).__name__}') for i, o in enumerate(ANYTHING)])
def test_check_never_raises(o):
    report = check(o, record=False)
    assert isinstance(report, grading.Report) and isinstance(repr(report) + report._repr_markdown_(), str)
    if not isinstance(o, (Callable, functools._lru_cache_wrapper, functools.partial)):
        assert not report.passed and report.property and report.message

@pytest.mark.parametrize('result',
                         ['torch.empty(2, 4, device="meta")', '(x @ w + b).to_sparse()',
                          'torch.zeros(2, 4, dtype=torch.complex64)',
                                    'torch.tensor(3)', 'torch.zeros(0)', 'x @ w + b*float("nan")',
                                    'x @ w + b*float("inf")', '(x @ w + b).half()',
                                    'nn.Parameter(x @ w)', 'lin', 'torch', '[x @ w + b]',
                                    '(x @ w + b,)', '"x"', '{}', 'iter(x)', '(o for o in x)',
                                    'torch.quantize_per_tensor(x @ w + b, .1, 0, torch.qint8)',
                                    '(x @ w + b).to(torch.bool)'])
def test_check_never_raises_at_a_result(result):
    report = verdict('lin', bodies('lin', f'return {result}'), nn=nn)
    assert not report.passed and report.property in ('type', 'shape', 'dtype', 'value'), report

@pytest.mark.parametrize('line',
                         ['x.resize_(9, 9)', 'x.data = x.data.int()', 'del w',
                          'torch.set_grad_enabled(False)', 'lin.__name__ = 3', 'f()',
                                  'raise KeyError', 'raise BaseException("all")',
                                  'raise GeneratorExit', 'return lin(x, w, b)', 'assert 0',
                                  'raise TimeoutError', 'yield', 'torch.zeros(10**13)',
                                  'exec("1 +")', 'raise x', 'import nowhere'])
def test_check_never_raises_at_a_line(line):
    with torch.set_grad_enabled(True): report = verdict('lin', bodies('lin', line + '; return x'))
    assert not report.passed and report.property, report
    assert verdict('lin', solution('lin')).passed                    # nothing is left behind

def test_report_shows_the_line_as_it_stands():
    report = verdict('mse', bodies('mse', 'return ((output - targ)**2).mean(0) @ "**"'))
    for shown in repr(report), report._repr_markdown_(): assert '`return ((output - targ)**2).mean(0) @ "**"`' in shown, shown

def test_not_implemented_by_torch_is_no_empty_body():
    report = verdict('lin', bodies('lin', 'return (x > 0) @ (w > 0)'))
    assert report.property == 'exception' and 'not implemented' in report.message, report
    report = verdict('Sigmoid', 'class Sigmoid(Module):\n    def forward(self, inp): return 1/(1 + (-inp).exp())')
    assert report.property != 'empty' or 'bwd' in report.message, report


# ---- the engine: time ----
def spin(seconds=5):
    stop = time.monotonic() + seconds
    while time.monotonic() < stop: pass

@contextlib.contextmanager
def alarm(handler):
    was = signal.signal(signal.SIGALRM, handler)
    try: yield
    finally: signal.signal(signal.SIGALRM, was)

@pytest.mark.parametrize('job, raises',
                         [(spin, TimeUp), (lambda: time.sleep(5), TimeUp), (lambda: None, None),
                          (lambda: 1/0, ZeroDivisionError)])
def test_time_limit_restores_the_alarm(job, raises):
    def mine(*_): pass
    with alarm(mine):
        with pytest.raises(raises) if raises else contextlib.nullcontext():
            with time_limit(.1): job()
        assert signal.getsignal(signal.SIGALRM) is mine and signal.getitimer(signal.ITIMER_REAL) == (0, 0)

def test_time_limit_strikes_again():
    "Code that catches it, and goes on, is stopped once more"
    def stubborn():
        try: spin()
        except BaseException: spin()
    start = time.monotonic()
    with pytest.raises(TimeUp), time_limit(.1): stubborn()
    assert .1 <= time.monotonic() - start < 3

def in_thread(f):
    found = []
    def go():
        try: found.append(f())
        except BaseException as e: found.append(e)
    t = threading.Thread(target=go)
    t.start()
    t.join(10)
    assert not t.is_alive(), 'it still runs'
    return found[0]

def test_time_limit_in_a_thread(monkeypatch):
    def limited():
        with time_limit(.1): spin()
    start = time.monotonic()
    assert isinstance(in_thread(limited), TimeUp) and time.monotonic() - start < 2
    monkeypatch.setitem(EXERCISES, 'relu', dataclasses.replace(EXERCISES['relu'], seconds=LIMIT))
    report = in_thread(lambda: verdict('relu', bodies('relu', 'while True: pass')))
    assert report.property == 'time' and 'while True: pass' in report.message
    assert in_thread(lambda: verdict('relu', solution('relu'))).passed
    def quick():
        with time_limit(.05): pass
        spin(.2)                                 # what is over isn't stopped any more
        return 'done'
    assert in_thread(quick) == 'done'

def test_time_limit_without_signals(monkeypatch):
    monkeypatch.delattr(signal, 'setitimer')
    with pytest.raises(TimeUp), time_limit(.1): spin()
    spin(.2)


# ---- the engine: watching ----
def test_what_is_watched_is_given_back():
    def mine(*_): pass
    for text, property in (solution('lin'), ''), (bodies('lin', 'return F.linear(x, w.t(), b)'),
                                                  'no ready-made function'), \
            ('def lin(*args): return theirs(*args)', 'no ready-made function'), (bodies('lin', 'raise ValueError'),
            'exception'):
        sys.setprofile(mine)
        try: report, left = verdict('lin', text, theirs=EXERCISES['lin'].solution), sys.getprofile()
        finally: sys.setprofile(None)
        assert report.property == property and left is mine
    assert F.linear(torch.ones(1, 2), torch.ones(3, 2)).shape == (1, 3)       # nothing is forbidden any more
    out = sys.stdout, sys.stderr
    torch.manual_seed(5); a = torch.rand(1); torch.manual_seed(5)
    verdict('lin', bodies('lin', 'return torch.rand(2, 4)'))
    assert torch.rand(1) == a and (sys.stdout, sys.stderr) == out

def test_no_calls_sees_methods_and_decorated_functions():
    class Thing:
        @torch.no_grad()
        def go(self): return 1
    def told(*fault): raise Fault(*fault)
    with no_calls(grading.codes_of(Thing), told):
        with pytest.raises(Fault, match='Thing'): Thing().go()
    assert Thing().go() == 1

def test_what_is_printed_is_capped():
    out = Caught()
    run(spin, lambda: [print('x'*999) for _ in range(999)], out)
    assert out.total == 999*1000 and len(out.getvalue()) == 10_000
    report = verdict('relu', before('relu', 'for i in range(10**4): print("noise"*99)'))
    assert report.passed and 'characters' in repr(report) and 'noise' not in repr(report)

def test_keyboard_stops_everything():
    def stopped(): raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt): run(stopped, stopped)


# ---- the engine: what differs ----
def t(*values, dtype=torch.float32): return torch.tensor(values, dtype=dtype)

@pytest.mark.parametrize('g, w, why', [
    (t(-1., 2.), t(1., -2.), 'every sign is the opposite'),
    (t(2., -4.), t(1., -2.), 'every number is 2 times too large'),
    (t(-2., 4.), t(1., -2.), 'every number is -2 times too large'),
    (t(.5, 1.), t(1., 2.), 'every number is 2 times too small'),
    (t(1.3, 2.6), t(1., 2.), 'every number is 1.3 times what it should be'),
    (t(0., 0.), t(1., 2.), 'all of it is zero'),
    (t(3., 4.), t(1., 2.), 'every number is +2 off'),
    (t(nan, 2.), t(1., 2.), '1 of 2 numbers are nan'), (t(1., 5.), t(1., 2.), '1 of 2 numbers are right'),
    (t([1., 3.], [2., 4.]), t([1., 2.], [3., 4.]), 'it is transposed'),
    (t([1., 4.], [3., 6.], [7., 5.]), t([0., 1.], [2., 3.], [6., 2.]), 'every row is off by the same numbers'),
    (t([1., 2., 3.], [7., 8., 9.]), t([0., 1., 2.], [4., 5., 6.]), 'every column is off by the same numbers'),
    (t(5., 6.), t(1., 9.), ''), (torch.zeros(0), torch.zeros(0), ''),
    (t(1, 2, dtype=torch.int64), t(2, 1, dtype=torch.int64), '')])
def test_diagnosis(g, w, why): assert diagnose(g, w).startswith(why) and bool(diagnose(g, w)) == bool(why)

def test_numbers_that_differ_are_shown_so():
    "In float64 an error of float32 is seen, and the two numbers of the message differ"
    report = verdict('lin', bodies('lin', 'return (x.float() @ w.float() + b.float()).to(x.dtype)'))
    got, want = re.search(r' is ([-\d.]+)(?: at \[.*?\])?, wanted ([-\d.]+\d)', report.message).groups()
    assert report.property == 'dtype' and got != want, report.message

def test_nothing_close_to_the_wanted_passes_for_it():
    w = torch.tensor([1., 1e-3])
    assert grading.agree(w*(1 + 1e-5), w) and not grading.agree(w*(1 + 1e-3), w)
    assert grading.agree(t(inf, -inf, nan), t(inf, -inf, 1.)) is False and grading.agree(t(inf, -inf), t(inf, -inf))
    big = verdict('logsumexp', bodies('logsumexp', 'm = x.max(-1).values\n    if x.max() > 80: return m\n'
                                      '    return (x - m[..., None]).exp().sum(-1).log() + m'))
    assert big.property == 'stability', big


# ---- progress ----
def rows(): return json.loads(progress_file().read_text(encoding='utf-8'))

def right(name='relu'): return cell(name, solution(name))
def wrong(name='relu'): return cell(name, text_of(name, WRONG[name][0][1]))

def test_progress_is_counted(home, monkeypatch):
    assert progress_file() == home/'backprop13'/'progress.json' and not progress_file().exists()
    check(wrong()); check(wrong(), record=False); check(cell('relu', starter('relu')))         # an empty one is no try
    assert rows() == {'relu': {'tries': 1, 'hints': 0, 'solved': None}}
    report = check(right())
    assert rows()['relu']['tries'] == 2 and f'1 of {len(EXERCISES)} exercises solved.' in repr(report)
    day = rows()['relu']['solved']
    assert re.fullmatch(r'\d{4}-\d\d-\d\d', day)
    class Later(exercises.date):
        @classmethod
        def today(cls): return cls(2099, 1, 1)
    monkeypatch.setattr(exercises, 'date', Later)
    check(right()); check(wrong()); check(right('mse'))
    assert rows()['relu'] == {'tries': 4, 'hints': 0, 'solved': day} and rows()['mse']['solved'] == '2099-01-01'
    table = repr(progress())
    assert '| ✓ | `relu` | 4 |' in table and '|  | `lin` |  |' in table and f'2 of {len(EXERCISES)}' in table
    assert all(f'`{name}`' in table for name in EXERCISES)

def test_record_false_writes_nothing(home):
    for f in right(), wrong(), 3: check(f, record=False)
    check('nothing'), progress()
    assert not list(home.iterdir())

def test_hints_come_one_at_a_time():
    hints = EXERCISES['matmul'].hints
    assert len(hints) == 3
    for i, text in enumerate([*hints, hints[-1]]):
        note = repr(hint('matmul' if i % 2 else right('matmul')))
        assert text in note and not any(other in note for other in hints if other != text)
        assert ('the same call again' in note) == (text != hints[-1])
        assert rows()['matmul']['hints'] == min(i + 1, 3)
    assert rows()['matmul']['tries'] == 0
    assert 'is nearest' in repr(hint('matmull')) or 'matmul' in repr(hint('matmull'))

@pytest.mark.parametrize('left',
                         ['{"relu": 3', '', '[1, 2]', '"text"', 'null', '\xff\xfe', '{"relu": 5}',
                          '{"relu": {"tries": "3", "hints": 0}}',
                                  '{"relu": {"tries": 1, "hints": null}}', '{"relu": []}'])
def test_strange_file(left):
    "What isn't ours is moved aside, never lost; nothing raises"
    progress_file().parent.mkdir()
    progress_file().write_bytes(left.encode('latin-1'))
    assert f'0 of {len(EXERCISES)}' in repr(progress())
    assert EXERCISES['relu'].hints[0] in repr(hint('relu'))
    assert check(right()).passed and rows()['relu']['tries'] == 1 and rows()['relu']['solved']
    try: kept = isinstance(json.loads(left), dict)
    except ValueError: kept = False
    if not kept: assert progress_file().with_suffix('.unreadable').read_bytes() == left.encode('latin-1')

def test_rows_of_others_are_kept():
    progress_file().parent.mkdir()
    progress_file().write_text('{"gone": {"tries": 7, "hints": 1, "solved": "2020-01-01"}}')
    check(right())
    assert rows()['gone'] == {'tries': 7, 'hints': 1, 'solved': '2020-01-01'} and f'1 of {len(EXERCISES)}' in repr(progress())

def test_folder_that_cannot_be_written(home, monkeypatch):
    (home/'file').write_text('')
    # a file where the folder should be: no one can write there
    monkeypatch.setenv('XDG_DATA_HOME', str(home/'file'))
    report = check(right())
    assert report.passed and sum(str(progress_file()) in note for note in report.notes) == 1 and "isn't kept" in repr(report)
    hints = [repr(hint('matmul')) for _ in range(2)]
    assert EXERCISES['matmul'].hints[0] in hints[0]
    assert EXERCISES['matmul'].hints[1] in hints[1]                  # the next one comes all the same
    assert (home/'file').read_text() == ''

def test_home_that_is_no_path(monkeypatch):
    for home in '', 'relative':
        monkeypatch.setenv('XDG_DATA_HOME', home)
        assert progress_file().is_absolute() and progress_file().parts[-4:-2] == ('.local', 'share')
