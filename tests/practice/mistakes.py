"""Known mistakes: wrong solutions, which `check` refuses, each with the property that it must name. A row of `TOLD` is
(kind, how it is made, a piece of the report's message, and of where to look), below that property; each fails another
trial, or is told in other words, than the rest of its exercise. `BY_CARD` has the bugs of the chapters' cards,
`BY_KIND` the kinds that any exercise can meet; what can't occur in one says why. tools/practice.py counts them."""
import ast, linecache, re, sys

import torch.nn.functional as F

import backprop13.support.cards                                              # fills CARDS
from backprop13 import minibatch
from backprop13.practice.exercises import EXERCISES, PAGES, check, solution, starter
from backprop13.support.card import CARDS, Card

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
    "A pair is a change of the solution, a list several; a text with `def` or `class` is the whole of it, others a body"
    if isinstance(how, tuple): how = [how]
    if isinstance(how, list):
        text = solution(name)
        for old, new in how:
            n = text.count(old)
            assert n == 1, f'{name}: {old!r} stands {n} times in its solution, wanted once; change the row'
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

TOLD = {
    'matmul': {
        'exception': [('the wrong axis', ('.sum(0)', '.sum(1)'), 'out[i] = (a[i][:, None]*b).sum(1)')],
        'dtype': [
            ('a dtype of its own for PyTorch',
             'torch.set_default_dtype(torch.float64); return torch.zeros(len(a), b.shape[1]) + (a[:, '
             ':, None]*b).sum(1)', 'float64'),
            ('always float32', ('a.new_zeros(', 'torch.zeros('), 'float32')],
        'value': [
            ('the wrong sign', ('= (a', '= -(a'), 'every sign is the opposite'),
            ('a mean', ('.sum(0)', '.mean(0)'), '3 times too small'),
            ('transposed if square', ('return out', 'return out.t() if len(a) == b.shape[1] else out'),
             'it is transposed'),
            ('adds to what it gave before',
             'import torch\nkept = {}\ndef matmul(a, b):\n'
             '    out = kept.setdefault((len(a), b.shape[1], a.dtype), a.new_zeros(len(a), b.shape[1]))\n'
             '    for i in range(len(a)): out[i] += (a[i][:, None]*b).sum(0)\n    return out.clone()',
             'called again')],
        'shape': [('transposed', ('return out', 'return out.t()'), '(4, 2), wanted (2, 4)')],
        'type': [('None', ('return out', 'pass'), 'is None')],
        'inputs unchanged': [('changes its input', ('return out', 'a.mul_(2); return out'), 'it changes a')],
        'batch of one': [('drops axes', ('return out', 'return out.squeeze()'), 'shape ()')],
        'no ready-made function': [('@', 'return a @ b', '`@`')],
        'two calls': [
            ('one memory for all results',
             'import torch\nkept = {}\ndef matmul(a, b):\n'
             '    out = kept.setdefault((len(a), b.shape[1], a.dtype), a.new_zeros(len(a), b.shape[1]))\n'
             '    for i in range(len(a)): out[i] = (a[i][:, None]*b).sum(0)\n    return out',
             'after another call')]},
    'relu': {
        'dtype': [
            ('half of it, in float64', 'torch.set_default_dtype(torch.float64); return (x + x.abs())/2',
             'the default dtype'),
            ('True and False', 'return x > 0', 'a bool tensor'),
            ('always float32', 'return x.clamp(min=0).float()', 'float32')],
        'exception': [
            ('arguments of another kind', 'return torch.max(0, x)', 'got (int, Tensor), in line',
             'takes other arguments'),
            ('two axes alone', 'return torch.stack([x[i, :].clamp(min=0) for i in range(len(x))])',
             'IndexError')],
        'inputs unchanged': [('in place', ('masked_fill(', 'masked_fill_('), 'it changes x')],
        'shape': [('flat', 'return x.clamp(min=0).flatten()')],
        'stability': [('overflows', 'return (x + x.abs())/2', 'infinite')],
        'type': [('None', ('return ', ''), 'None')],
        'batch of one': [('drops axes', 'return x.clamp(min=0).squeeze()')],
        'value': [('up to three axes', 'return x*(x > 0) if x.ndim < 4 else x*1')],
        'gradient': [
            ('by way of a list', 'return torch.tensor(x.tolist(), dtype=x.dtype).clamp(min=0)',
             'autograd has lost')]},
    'lin': {
        'value': [
            ('no bias', 'return x @ w', 'every row is off by the same numbers'),
            ('transposed weights if square', 'return x @ (w.t() if len(w) == len(b) else w) + b', 'square')],
        'shape': [('transposed', 'return (x @ w + b).t()', '(4, 2), wanted (2, 4)')],
        'batch of one': [('drops axes', 'return (x @ w).squeeze() + b')],
        'dtype': [('always float32', 'return (x @ w + b).float()')],
        'type': [('NumPy', 'return (x @ w + b).numpy()', 'NumPy')],
        'inputs unchanged': [('changes the weights', 'y = x @ w + b; w += 1; return y', 'it changes w')],
        'gradient': [('the bias is cut off', 'return x @ w + b.data', 'b.g')]},
    'mse': {
        'value': [
            ('no mean', 'return (output - targ).square().sum()', '4 times too large'),
            ('divided by the rows', 'return (output - targ).square().sum()/len(targ)', '2 times too large')],
        'type': [('None', 'mean = (output - targ).square().mean()', 'None')],
        'dtype': [('always float32', 'return (output - targ).square().mean().float()')],
        'inputs unchanged': [('in place', 'output -= targ; return output.square().mean()', 'it changes output')],
        'batch of one': [
            ('at least two', 'd = output - targ; return d.square().sum()/max(2, d.numel())',
             '2 times too small')],
        'no ready-made function': [('ready-made', 'return F.mse_loss(output, targ)', 'mse_loss')],
        'gradient': [
            ('by way of the root', 'd = output - targ; return d.square().sum().sqrt()**2/d.numel()', 'nan')]},
    'mse_grad': {
        'signature': [
            ('the other order', 'def mse_grad(targ, inp): inp.g = 2*(inp - targ)/inp.numel()',
             'takes (targ, inp), wanted (inp, targ)')],
        'gradient': [
            ('no 2', ('2*', ''), '2 times too small'),
            ('divided by the rows', ('inp.numel()', 'len(inp)'), '2 times too large')],
        'shape': [('a mean over rows', 'inp.g = 2*(inp - targ).mean(0)', '(1,), wanted (4, 1)')],
        'dtype': [('always float32', ('2*(inp - targ)', '2*(inp - targ).float()'), 'float32')],
        'type': [('NumPy', ('/inp.numel()', '/inp.numel(); inp.g = inp.g.numpy()'), 'NumPy')],
        'batch of one': [('at least two', ('inp.numel()', 'max(2, inp.numel())'))],
        'inputs unchanged': [('in place', 'inp -= targ; inp.g = 2*inp/inp.numel()', 'it changes inp')],
        'no autograd': [('torch.func', 'inp.g = torch.func.grad(F.mse_loss)(inp, targ)')]},
    'relu_grad': {
        'gradient': [
            ('a slope of 1 at 0', ('inp > 0', 'inp >= 0'), 'exactly 0'),
            ('not set', 'return out.g*(inp > 0)', 'inp.g was not set')],
        'dtype': [
            ('True and False', 'inp.g = inp > 0', 'bool'), ('always float32', 'inp.g = out.g.float()*(inp > 0)')],
        'shape': [('flat', 'inp.g = (out.g*(inp > 0)).flatten()')],
        'batch of one': [('drops axes', 'inp.g = (out.g*(inp > 0)).squeeze()')],
        'inputs unchanged': [
            ('changes its input', 'inp.g = out.g*(inp > 0); inp.clamp_(min=0)', 'it changes inp'),
            ('clears the gradient that arrives', 'out.g[inp <= 0] = 0; inp.g = out.g.clone()',
             'it changes out.g')],
        'type': [('NumPy', 'inp.g = (out.g*(inp > 0)).numpy()', 'NumPy')],
        'no autograd': [
            ('autograd', 'i = inp.clone().requires_grad_(); inp.g, = torch.autograd.grad(i.relu(), i, out.g)')]},
    'lin_grad': {
        'shape': [('no sum over rows', FINISH + 'out.g', 'b.g has shape (4, 2), wanted (2,)')],
        'type': [('NumPy, set', FINISH + 'out.g.sum(0).numpy()', 'NumPy', 'Which step')],
        'gradient': [
            ('square weights the wrong way round',
             FINISH + 'out.g.sum(0)\n    if len(w) == len(b): w.g = w.g.t()', 'transposed'),
            ('square weights not transposed',
             FINISH + 'out.g.sum(0)\n    if len(w) == len(b): inp.g = out.g @ w', 'square')],
        'dtype': [('ones of float32', FINISH + 'torch.ones(len(inp)) @ out.g')],
        'batch of one': [('another axis for one row', FINISH + 'out.g.sum(0 if len(inp) > 1 else 1)')],
        'inputs unchanged': [('changes its input', FINISH + 'out.g.sum(0); inp.zero_()', 'it changes inp')],
        'no autograd': [
            ('autograd', 'i = inp.clone().requires_grad_(); (i @ w + b).backward(out.g); inp.g = i.grad')]},
    'forward_and_backward': {
        'no autograd': [
            ('autograd in a helper',
             STEPS.replace('(inp > 0)*out.g', 'torch.autograd.grad(inp, inp, out.g)') + NETWORK,
             'in `relu_grad`, in line 3')],
        'gradient': [('stops half-way', ('lin_grad(inp, l1, w1, b1)', 'pass'), 'was not set')],
        'value': [('no relu', ('relu(l1)', 'l1'), 'the loss')],
        'shape': [('the predictions', ('return loss', 'return out'), '(4, 1)')],
        'type': [('None', ('return loss', 'pass'), 'None')],
        'dtype': [('always float32', ('return loss', 'return loss.float()'))],
        'inputs unchanged': [
            ('changes its input', ('return loss', 'targ.zero_(); return loss'), 'it changes targ')],
        'batch of one': [('at least two', ('/out.numel()', '/max(2, out.numel())'))],
        'exception': [
            ('backwards in the wrong order', ('lin_grad(l2, out, w2, b2)', 'lin_grad(inp, l1, w1, b1)'),
             'lin_grad(inp')]},
    'Lin': {
        'signature': [
            ('bwd the other way round', ('def bwd(self, out, inp)', 'def bwd(self, inp, out)'),
             '`Lin.bwd` takes (self, inp, out), wanted (self, out, inp)'),
            ('__call__ for forward', ('def forward', 'def __call__'), 'no method `forward`'),
            ('no Module', ('class Lin(Module)', 'class Lin'), 'is no `Module`')],
        'inputs unchanged': [
            ('changes the gradient that arrives', ('add_grad(self.b', 'out.g += 1; add_grad(self.b'),
             'it changes out.g: ', 'write into'),
            ('changes its input', ('out.g.sum(0))', 'out.g.sum(0)); inp.zero_()'), 'it changes inp')],
        'two calls': [
            ('remembers its last input',
             [('return lin(', 'self.inp = inp; return lin('), ('inp.t()', 'self.inp.t()'),
              ('(inp, out.g', '(self.inp, out.g')], 'inp.g was not set (right: the output), for',
             'what `bwd` is given'),
            ('goes by its last arguments',
             [('inp.t()', 'self.args[0].t()'), ('(inp, out.g', '(self.args[0], out.g')], '',
             'what `bwd` is given'),
            ('goes by its last output', ('out.g.sum(0)', 'self.out.g.sum(0)'), "no attribute 'g'",
             'what `bwd` is given')],
        'gradients add up': [
            ('sets the biases', ('add_grad(self.b, out.g.sum(0))', 'self.b.g = out.g.sum(0)'), 'b.g'),
            ('sets the inputs', ('add_grad(inp, out.g @ self.w.t())', 'inp.g = out.g @ self.w.t()'), 'inp.g')],
        'gradient': [
            ('forgets the biases', ('add_grad(self.b, out.g.sum(0))', 'pass'), 'b.g was not set'),
            ('the weights as they were at first',
             [('self.w, self.b = w, b', 'self.w, self.b, self.wt = w, b, w.t().clone()'),
              ('out.g @ self.w.t()', 'out.g @ self.wt')], 'moved in place')],
        'exception': [('no transpose', ('self.w.t()', 'self.w'), 'out.g @ self.w)')],
        'value': [
            ('no bias', ('return lin(inp, self.w, self.b)', 'return inp @ self.w'), 'every row is off'),
            ('fifty calls', ('return lin(', 'self.n = getattr(self, "n", 0) + 1; return (self.n < 50)*lin('),
             'a hundred times')],
        'type': [('None', ('return lin', 'lin'), 'None')],
        'dtype': [('always float32', ('self.w, self.b)', 'self.w, self.b).float()'))],
        'batch of one': [('drops axes', ('inp.t()', 'inp.squeeze().t()'))]},
    'Sigmoid': {
        'value': [
            ('the wrong sign', ('(-inp)', 'inp')),
            ('rounded', ('return 1/(1 + (-inp).exp())', 'return (1e6/(1 + (-inp).exp())).round()/1e6'))],
        'inputs unchanged': [
            ('changes its output',
             ('add_grad(inp, out.g*out*(1 - out))', 'out *= 1 - out; add_grad(inp, out*out.g)'),
             'it changes out: '),
            ('changes its input', ('(1 - out))', '(1 - out)); inp.zero_()'), 'it changes inp')],
        'type': [
            ('NumPy inside', ('1/(1 + (-inp).exp())', '1/(1 + __import__("numpy").exp(-inp))'), 'NumPy'),
            ('None', ('return ', ''), 'None')],
        'stability': [('overflows', ('1/(1 + (-inp).exp())', 'inp.exp()/(1 + inp.exp())'), 'nan')],
        'gradient': [('half of the slope', ('*(1 - out)', ''))],
        'two calls': [
            ('remembers its last call alone',
             'class Sigmoid(Module):\n    def forward(self, x):\n'
             '        self.s = 1/(1 + torch.exp(-x)); return self.s\n'
             '    def bwd(self, out, x): add_grad(x, self.s*(1 - self.s)*out.g)')],
        'gradients add up': [('sets', ('add_grad(inp, out.g*out*(1 - out))', 'inp.g = out.g*out*(1 - out)'))],
        'dtype': [('always float32', ('(-inp).exp())', '(-inp).exp()).float()'))],
        'batch of one': [('drops axes', ('1/(1 + (-inp).exp())', '(1/(1 + (-inp).exp())).squeeze()'))]},
    'Scale': {
        'value': [('a sum', ('inp*self.w', 'inp + self.w'))],
        'shape': [('a product of matrices', ('inp*self.w', 'inp @ self.w'), '(4,), wanted (4, 3)')],
        'exception': [('no sum over rows', ('(out.g*inp).sum(0)', 'out.g*inp'), 'ValueError')],
        'gradient': [
            ('no weight in the slope', ('out.g*self.w', 'out.g'), 'inp.g'),
            ('along the rows if square', ('.sum(0)', '.sum(int(len(inp) == len(self.w)))'), 'w.g')],
        'gradients add up': [
            ('sets the weights', ('add_grad(self.w, (out.g*inp).sum(0))', 'self.w.g = (out.g*inp).sum(0)'),
             'w.g')],
        'batch of one': [('drops axes', ('(out.g*inp)', '(out.g*inp).squeeze()'))],
        'dtype': [('always float32', ('inp*self.w', '(inp*self.w).float()'))],
        'type': [('NumPy', ('inp*self.w', '(inp*self.w).numpy()'), 'NumPy')],
        'inputs unchanged': [('changes its weights', ('.sum(0))', '.sum(0)); self.w.zero_()'), 'it changes w')]},
    'Chain': {
        'no autograd': [
            ('backward of the tensor',
             [('return self.loss(x, targ)', 'self.out = self.loss(x, targ); return self.out'),
              ('self.loss.backward()', 'self.out.backward()')], "PyTorch's `backward`",
             'A layer has a `backward` of its own')],
        'exception': [
            ('forgets the loss', ('self.loss.backward()', 'pass')),
            ('always three layers', ('in self.layers:', 'in [self.layers[i] for i in range(3)]:'),
             'a single layer')],
        'shape': [('an axis of 1', ('(x, targ)\n    def', '(x, targ)[None]\n    def'), '(1,), wanted ()')],
        'type': [('None', ('return self.loss', 'self.loss'), 'None')],
        'value': [('twice the loss', ('return self', 'return 2*self'), '2 times too large')],
        'gradient': [
            ('stops before the first layer', ('reversed(self.layers)', 'reversed(self.layers[1:])'),
             'x.g was not set'),
            ('walks back twice', ('layer.backward()', 'layer.backward(); layer.backward()'), 'times too large')],
        'dtype': [('always float32', ('return self.loss(x, targ)', 'return self.loss(x, targ).float()'))],
        'batch of one': [
            ('refuses one row', ('return self', 'assert len(x) > 1; return self'), 'AssertionError')],
        'inputs unchanged': [
            ('changes the targets',
             ('layer.backward()', 'layer.backward()\n        self.loss.args[1].mul_(2)'), 'targ')],
        'no ready-made function': [
            ('the library',
             ('self.layers, self.loss = layers, loss',
              'from backprop13.backprop import Model; self.model = Model(*[torch.zeros(3, 3)]*4)'), 'Model')],
        'two calls': [
            ('all chains in one list',
             [('self.layers, self.loss = layers, loss',
               'Chain.all = getattr(Chain, "all", []) + layers; self.layers, self.loss = Chain.all, loss')])],
        'gradients add up': [
            ('forgets before it walks back',
             ('self.loss.backward()', '[layer.zero_grad() for layer in self.layers]; self.loss.backward()'))]},
    'logsumexp': {
        'type': [
            ('NumPy inside',
             'np = __import__("numpy"); a = x.max(-1, keepdim=True).values; return a[..., 0] + '
             'np.log(np.exp(x - a).sum(-1))', 'NumPy'),
            ('NumPy', 'return x.exp().sum(-1).log().numpy()', 'NumPy')],
        'stability': [
            ('one shift for all', 'm = x.max(); return (x - m).exp().sum(-1).log() + m', 'infinite'),
            ('the largest size',
             'm = x.abs().max(-1, keepdim=True).values; return (x - m).exp().sum(-1).log() + m[..., 0]'),
            ('at most 10000',
             'x = x.clamp(-1e4, 1e4); m = x.amax(-1, keepdim=True); return m[..., 0] + (x - '
             'm).exp().sum(-1).log()')],
        'value': [
            ('the first axis of a square', 'return x.exp().sum(0 if len(x) == x.shape[-1] else -1).log()',
             'square'),
            ('base 2', 'return x.exp().sum(-1).log2()', '1.443 times'),
            ('a mean', 'return x.exp().mean(-1).log()', 'off')],
        'dtype': [('always float32', 'return x.float().exp().sum(-1).log()')],
        'inputs unchanged': [
            ('in place',
             'm = x.max(-1, keepdim=True).values; x -= m; return x.exp().sum(-1).log() + m[..., 0]',
             'it changes x')],
        'batch of one': [('drops axes', 'return x.exp().sum(-1).log().squeeze()')]},
    'log_softmax': {
        'stability': [
            ('loses digits', 'return x - logsumexp(x)[..., None]', 'two equal scores', 'loses digits'),
            ('one shift for all', 'x = x - x.max(); return x - x.exp().sum(-1, keepdim=True).log()')],
        'value': [
            ('the axis is missing in a square',
             'return x - (logsumexp(x) if len(x) == x.shape[-1] else logsumexp(x)[..., None])', 'square'),
            ('a constant too much', 'return x - logsumexp(x)[..., None] + 1', 'every number is +1 off'),
            ('a small number in the logarithm',
             'p = (x - x.amax(-1, keepdim=True)).exp(); return (p/p.sum(-1, keepdim=True) + 1e-8).log()',
             'a small number added')],
        'exception': [('two axes alone', 'return x - logsumexp(x)[:, None]', 'logsumexp(x)[:, None]')],
        'dtype': [('always float32', 'return (x - logsumexp(x)[..., None]).float()')],
        'inputs unchanged': [('in place', 'x -= logsumexp(x)[..., None]; return x', 'it changes x')],
        'batch of one': [('drops axes', 'return (x - logsumexp(x)[..., None]).squeeze()')],
        'type': [('NumPy', 'return (x - logsumexp(x)[..., None]).numpy()', 'NumPy')]},
    'nll': {
        'stability': [
            ('one-hot rows', 'return -(F.one_hot(targ, log_probs.shape[1])*log_probs).sum()/len(targ)', 'nan',
             '0 times infinity')],
        'gradient': [
            ('a new tensor',
             'return -torch.stack([torch.tensor(float(row[t])) for row, t in zip(log_probs, '
             'targ)]).to(log_probs).mean()', 'autograd has lost', 'Which line takes the numbers out')],
        'shape': [('no mean', 'return -log_probs[range(len(targ)), targ]', '(4,), wanted ()')],
        'type': [('None', 'loss = -log_probs[range(len(targ)), targ].mean()', 'None')],
        'dtype': [('always float32', 'return -log_probs[range(len(targ)), targ].mean().float()')],
        'inputs unchanged': [
            ('in place', 'return log_probs.neg_()[range(len(targ)), targ].mean()', 'it changes log_probs')],
        'batch of one': [
            ('drops axes', 'targ = targ.squeeze(); return -log_probs[range(len(targ)), targ].mean()',
             'TypeError')],
        'no ready-made function': [('ready-made', 'return F.nll_loss(log_probs, targ)', 'nll_loss')]},
    'cross_entropy': {
        'gradient': [
            ('walks back',
             'loss = nll(log_softmax(logits), targ)\n    if loss.requires_grad: loss.backward()\n'
             '    return loss',
             'a second time (or directly access saved tensors after they have already been freed), for ',
             'whoever calls you')],
        'value': [('the wrong sign', 'return -nll(log_softmax(logits), targ)', 'sign is the opposite')],
        'shape': [('no mean', 'return -log_softmax(logits)[range(len(targ)), targ]')],
        'type': [('None', 'loss = nll(log_softmax(logits), targ)', 'None')],
        'dtype': [('always float32', 'return nll(log_softmax(logits.float()), targ)')],
        'inputs unchanged': [
            ('in place',
             'logits -= logits.max(-1, keepdim=True).values; return nll(log_softmax(logits), targ)', 'logits')],
        'batch of one': [('drops axes', 'return nll(log_softmax(logits.squeeze()), targ)')],
        'no ready-made function': [('ready-made', 'return F.cross_entropy(logits, targ)', 'cross_entropy')]},
    'train': {
        'value': [
            ('gradients pile up', ('p.grad = None', 'pass'), '2 of 3 numbers are right'),
            ('climbs', ('p -= lr', 'p += lr'), 'every sign is the opposite, for a batch size'),
            ('one epoch', ('range(epochs)', 'range(1)'), 'number of losses'),
            ('freezes', ('return losses', 'model.requires_grad_(False); return losses'), 'wants gradients'),
            ('evaluation mode', ('losses = []', 'losses = []; model.eval()'), 'in training mode')],
        'exception': [
            ('a parameter of another name', ('p -= lr*p.grad', 'p -= lr*p.g'), "no attribute 'g'", '`.grad`')],
        'type': [
            ('tensors', ('loss.item()', 'loss.detach()'), 'the list has a float64 tensor of shape () in it'),
            ('None', ('return losses', 'pass'))],
        'dtype': [('float32 weights', ('return losses', 'model.float(); return losses'), 'float32')],
        'inputs unchanged': [
            ('changes its input', ('return losses', 'x.mul_(2); return losses'), 'it changes x')],
        'batch of one': [('wants two rows', ('losses = []', 'losses = []; x[1]'), 'IndexError')]},
    'SGD': {
        'exception': [
            ('.g', ('p.grad is not None: p -= self.lr*p.grad', 'p.grad is not None: p -= self.lr*p.g'),
             "no attribute 'g'", '`.grad`')],
        'value': [
            ('does not move', ('p -= self.lr*p.grad', 'pass'), 'all of it is zero'),
            ('always the same rate', ('self.lr*p.grad', '.1*p.grad'), 'another learning rate'),
            ('the first one alone',
             ('for p in self.params:\n            if', 'for p in self.params[:1]:\n            if'),
             'the move of 0.bias'),
            ('computes in float32', ('p -= self.lr*p.grad', 'p.copy_(p.float() - self.lr*p.grad.float())'),
             'float32'),
            ('one parameter of each shape', ('list(params)', 'list({p.shape: p for p in params}.values())')),
            ('changes the gradients', ('p -= self.lr*p.grad', 'p -= p.grad.mul_(self.lr)'),
             'step leaves the gradients')],
        'iterator': [
            ('keeps what can be looped over once', ('list(params)', 'params'), 'model.parameters()',
             'looped over')],
        'signature': [('no zero_grad', ('def zero_grad', 'def zero'), '`zero_grad`')]},
    'Momentum': {
        'value': [
            ('the rate belongs to the move',
             [('move += p.grad', 'move += self.lr*p.grad'), ('self.lr*move', 'move')], '`opt.lr` halved'),
            ('climbs', ('p -= self', 'p += self'), 'every sign is the opposite'),
            ('forgets nothing', ('p.grad = None', 'pass'), 'zero_grad'),
            ('moves of float32', ('zeros_like(p)', 'zeros(p.shape)'), 'float32')],
        'iterator': [
            ('keeps what can be looped over once', ('list(params)', 'params'), 'model.parameters()',
             'looped over')],
        'exception': [
            ('watched by autograd', ('@torch.no_grad()\n    ', ''), 'RuntimeError'),
            ('wants a gradient', ('p.grad is not None', 'True'), 'a parameter without a gradient')],
        'signature': [
            ('one argument less',
             ('momentum:float, # how much of the last step to go on with, from 0 to 1\n', ''), 'momentum')]},
    'Dataset': {
        'value': [
            ('one less', ('return len(self.x)', 'return len(self.x) - 1'), 'the length'),
            ('always the first target', ('self.y[i]', 'self.y[0]'), 'its y'),
            ('no negative numbers',
             ('self.x[i], self.y[i]', 'self.x[i], self.y[i if isinstance(i, slice) else abs(i)]'),
             'the last item')],
        'type': [
            ('a list for a slice',
             ('return self.x[i], self.y[i]',
              'return list(zip(self.x[i], self.y[i])) if isinstance(i, slice) else (self.x[i], self.y[i])'),
             '`ds[i]` is a list, wanted a pair (x, y), a tuple, for a slice'),
            ('a Python number', ('self.y[i]', 'int(self.y[i])'), ' int')],
        'exception': [
            ('a length of tensors alone', ('len(self.x)', 'self.x.shape[0]'), 'a list of words',
             'of another kind'),
            ('numbers alone', ('self.x[i], self.y[i]', 'self.x[int(i)], self.y[int(i)]'), 'a slice')],
        'dtype': [('float targets', ('self.y[i]', 'self.y[i].float()'), 'its y')],
        'inputs unchanged': [
            ('changes its input', ('self.x, self.y = x, y', 'self.x, self.y = x.clone(), y; x.zero_()'),
             'it changes x')],
        'signature': [('no length', ('def __len__', 'def length'), '__len__')],
        'iterator': [
            ('begins again at its end',
             ('return self.x[i], self.y[i]',
              'i = i % len(self.x) if isinstance(i, int) else i; return self.x[i], self.y[i]'))]},
    'Loader': {
        'value': [
            ('rounds down', ('-(-len(self.ds)//self.bs)', 'len(self.ds)//self.bs'), 'len(loader)'),
            ('a short last batch is left out', ('range(0, n, self.bs)', 'range(0, n - self.bs + 1, self.bs)'),
             '10 items'),
            ('never shuffles', ('if self.shuffle', 'if False'), 'the order is shuffled'),
            ('always shuffles', ('if self.shuffle', 'if True'), 'the order'),
            ('not from the generator', ('generator=self.generator)', 'generator=None)'), 'the same seed'),
            ('items come twice', ('torch.randperm(n,', 'torch.randint(n, (n,),'), 'once in an epoch'),
            ('the same order each time',
             ('generator=self.generator)', 'generator=torch.Generator().manual_seed(0))'), 'a new order'),
            ('x and y apart', (GIVE, 'yield self.ds.x[order[i:i+self.bs]], self.ds.y[i:i+self.bs]'),
             'stay together'),
            ('one more', ('order[i:i+self.bs]', 'order[i:i+self.bs + 1]'), 'sizes'),
            ('sorted batches', (GIVE, 'yield self.ds[order[i:i+self.bs].sort().values]'))],
        'inputs unchanged': [
            ('shuffles the dataset itself',
             [('order = torch.randperm(n, generator=self.generator)',
               'r = torch.randperm(n, generator=self.generator); self.ds.x = self.ds.x[r]; self.ds.y = '
               'self.ds.y[r]')], 'it changes the data: ')],
        'signature': [
            ('no defaults',
             [('shuffle:bool=False', 'shuffle'), ('generator:torch.Generator=None', 'generator')],
             'takes (self, ds, bs, shuffle, generator), wanted (self, ds, bs, shuffle=False, generator=None)')],
        'exception': [
            ('no yield',
             (f'for i in range(0, n, self.bs):\n            {GIVE}', 'return self.ds[order[:self.bs]]'),
             'non-iterator', 'one thing after another')],
        'type': [('inputs alone', (GIVE, 'yield self.ds[order[i:i+self.bs]][0]'), 'a pair of tensors')],
        'batch of one': [('drops axes', ('order[i:i+self.bs]', 'order[i:i+self.bs].squeeze()'))],
        'time': [('endless', ('for i in range(0, n, self.bs)', 'while i := 1'), 'did not finish')]},
    'test_lin_grad': {
        'bugs killed': [
            ('asserts nothing', (CHECK, 'pass'), 'finds 1 of 9'),
            ('no square', ('(3, 3, 3), ', ''), 'finds 8 of 9 bugs; one that it does not find: square'),
            ('calls once', ('range(2)', 'range(1)'),
             'finds 8 of 9 bugs; one that it does not find: a second call'),
            ('does not look at out.g', ('assert torch.equal(out.g, g)', 'break'), 'finds 7 of 9'),
            ('lax', (CHECK, CHECK[:-1] + ', 1e9)'))],
        'right one accepted': [
            ('refuses what einsum gives', (CHECK, CHECK + "; assert lin_grad.__name__ == 'lin_grad'"),
             'for a right one, by einsum'),
            ('always fails', 'assert False', 'assert False')],
        'exception': [('calls it wrongly', 'lin_grad(torch.ones(2, 2))', 'TypeError')]},
    'test_mse': {
        'bugs killed': [
            ('asserts nothing', ('check_grads(dict(inp=inp.g), dict(inp=times*want))', 'pass'), 'finds 1 of 9'),
            ('one column', ('(4, 1), (3, 2)', '[(4, 1)]'),
             'finds 8 of 9 bugs; one that it does not find: it is divided by the rows'),
            ('a gradient of 1', ('out.g = torch.tensor(3.)\n        want = 3*', 'want = '),
             'the gradient that arrives'),
            ('walks back once', ('times in 1, 2', 'times in [1]'), 'it sets the gradient'),
            ('does not look at its input', ('assert torch.equal(inp, before)', 'break'), 'finds 7 of 9'),
            ('predictions too high',
             ('torch.randn(shape), torch.randn(shape)', 'torch.ones(shape), torch.zeros(shape)'), 'too high')],
        'right one accepted': [('always fails', 'assert False', 'assert False')],
        'exception': [('calls it wrongly', 'Mse(torch.ones(2), torch.ones(2))', 'TypeError')]},
    'test_log_softmax': {
        'bugs killed': [
            ('asserts nothing', 'log_softmax(torch.randn(3, 3))', 'finds 0 of 9'),
            ('small scores', SOFT.format('torch.randn(3, 3), torch.randn(4, 2)', ''), 'large scores overflow'),
            ('does not look at its input', ('assert torch.equal(x, before)', 'pass'),
             'finds 8 of 9 bugs; one that it does not find: it changes'),
            ('goes on after an error',
             ('got = log_softmax(x)',
              '\n            try: got = log_softmax(x)\n            except Exception: return'), 'an error')],
        'right one accepted': [
            ('bit by bit',
             ('torch.testing.assert_close(got, torch.log_softmax(x, -1))',
              'assert torch.equal(got, torch.log_softmax(x, -1))')),
            ('wants probabilities', 'assert (log_softmax(torch.randn(3, 4)) >= 0).all()'),
            ('always fails', 'assert False', 'assert False')],
        'exception': [('calls it wrongly', 'log_softmax()', 'TypeError')]},
    'test_train': {
        'bugs killed': [
            ('asserts nothing', 'train(nn.Linear(3, 2), torch.randn(4, 3), torch.zeros(4).long(), 1, 2, .1)',
             'finds 0 of 9'),
            ('a falling loss',
             'x = torch.randn(8, 3)\n    y = (x[:, 0] > 0).long()\n'
             '    losses = train(nn.Linear(3, 2), x, y, 9, 4, .5)\n    assert losses[-1] < losses[0]'),
            ('no short batch',
             [('torch.randn(10, 3), torch.arange(10)', 'torch.randn(8, 3), torch.arange(8)'),
              ('[0, 4, 8]*2', '[0, 4]*2')], 'finds 8 of 9 bugs; one that it does not find: a short last batch'),
            ('one epoch', [('[0, 4, 8]*2', '[0, 4, 8]'), ('x, y, 2, 4', 'x, y, 1, 4')],
             'finds 8 of 9 bugs; one that it does not find: it stops after one epoch'),
            ('a rate of 1', [('lr=.5', 'lr=1.'), ('4, .5)', '4, 1.)')],
             'finds 8 of 9 bugs; one that it does not find: the learning rate'),
            ('one label', ('torch.arange(10)//3 % 2', 'torch.zeros(10).long()'),
             'finds 8 of 9 bugs; one that it does not find: the labels')],
        'right one accepted': [
            ('the same model, by another name', ('theirs.load_state_dict(mine.state_dict())', 'theirs = mine'),
             '', 'each its own'),
            ('always fails', 'assert False', 'assert False')],
        'exception': [('calls it wrongly', 'train()', 'TypeError')]},
    'topological_order': {
        'order': [
            ('by distance',
             'order, todo = [], [out]\n    while todo:\n        v = todo.pop(0)\n'
             '        if v not in order: order.append(v); todo.extend(parts(v))\n    return order',
             'which was made of it'),
            ('depth first, each when it is met',
             WALK.format('[out]', '', '').replace('return order', 'return list(dict.fromkeys(order))')
             .replace('todo += parts(v)', 'todo += parts(v) if v not in order[:-1] else []')),
            ('leaves first', ('noted[::-1]', 'noted'), "'x' comes before 'b', which was made of it"),
            ('a value used twice by one counts once', KAHN.format('set(parts(v))', 'parts(v)', '== 0'))],
        'value': [
            ('each path by itself', WALK.format('[out]', '', ''), "'x' is in it 2 times, wanted once"),
            ('the same, the other way round', KAHN.format('parts(v)', 'set(parts(v))', '== 0'), 'is not in it'),
            ('ready at the first use', KAHN.format('parts(v)', 'parts(v)', '>= 0'), 'times, wanted once'),
            ('without its start', ('noted[::-1]', 'noted[-2::-1]'), "'y' is not in it")],
        'visits': [
            ('each path by itself, and the last visit counts',
             WALK.format('[out]', '', '').replace('return order', 'return list(dict.fromkeys(order[::-1]))[::-1]'),
             'more than ten times')],
        'exception': [
            ('recursion',
             'order, seen = [], set()\n    def visit(v):\n        if v in seen: return\n        seen.add(v)\n'
             '        for p in parts(v): visit(p)\n        order.append(v)\n    visit(out)\n'
             '    return order[::-1]', 'RecursionError', 'a loop, need no depth'),
            ('lists of parts', ('noted.append(v)', 'noted.append(parts(v))'), 'TypeError')],
        'two calls': [
            ('what was seen is kept',
             ('noted, seen, todo = [], set(), ',
              'seen = topological_order.__dict__.setdefault("seen", set()); noted, todo = [], '),
             'is not in it', 'Each call has its own'),
            ('a list that all calls share',
             'def topological_order(out, parts, order=[]):\n    if out not in order:\n'
             '        for p in parts(out): topological_order(p, parts)\n        order.append(out)\n'
             '    return order[::-1]')],
        'type': [('None', ('return noted[::-1]', 'pass'), 'None, wanted a list')],
        'inputs unchanged': [
            ('adds to the list that it was given',
             'order, todo = [out], parts(out)\n    while todo:\n        v = todo.pop()\n'
             '        if v not in order: order.append(v); todo.extend(parts(v))\n    return order',
             "the parts of 'y'")],
        'no ready-made function': [
            ('ready-made',
             'from graphlib import TopologicalSorter\n    graph, todo = {}, [out]\n    while todo:\n'
             '        v = todo.pop()\n        if v not in graph: graph[v] = parts(v); todo += graph[v]\n'
             '    return list(TopologicalSorter(graph).static_order())[::-1]', 'TopologicalSorter')]},
    'backward': {
        'gradient': [
            ('forgets v.g', ('slope*v.g', 'slope')),
            ('starts at the value', ('out.g = 1', 'out.g = out.value'), '6 times too large'),
            ('does not start', ('out.g = 1', 'pass'), 'all of it is zero')],
        'two calls': [('nothing starts anew', ('v.g = 0', 'pass'))],
        'gradients add up': [('leaves start anew', ('if v.made_of', 'if not v.made_of'))],
        'time': [
            ('the same, and starts anew',
             'for v in topological_order(out, lambda v: [p for p, _ in v.made_of]):\n'
             '        if v.made_of: v.g = 0\n    out.g = 1\n    todo = [(out, 1)]\n    while todo:\n'
             '        v, g = todo.pop()\n        for p, slope in v.made_of:\n            p.g += slope*g\n'
             '            todo.append((p, slope*g))', 'did not finish')],
        'exception': [
            ('the order by recursion',
             ('topological_order(out, lambda v: [part for part, slope in v.made_of])',
              '[]\n    def visit(v):\n        for p, _ in v.made_of: visit(p) if p not in order else None\n'
              '        if v not in order: order.append(v)\n    visit(out); order.reverse()'), 'RecursionError',
             'a loop, need no depth'),
            ('tensors have it', ('part.g', 'part.grad'), "no attribute 'grad'")]},
    'tanh': {
        'gradient': [
            ('the wrong sign', ('g*(1', '-g*(1'), 'every sign is the opposite'),
            ('one rule for all calls',
             'global kept\n    kept = a\n    return result(a.data.tanh(), (a, lambda g: g*(1 - tanh(kept)**2)))')],
        'second derivative': [
            ('a rule of numbers', ('tanh(a)**2', 'a.data.tanh()**2'), 'the second derivative'),
            ('all of the rule in numbers', ('g*(1 - tanh(a)**2)', 'Tensor(g.data*(1 - a.data.tanh()**2))'), '',
             'which record, or numbers')],
        'loop in memory': [
            ('the rule holds the result',
             'out = result(a.data.tanh(), (a, lambda g: g*(1 - out*out)))\n    return out',
             'when nobody holds it', 'Which name in the rule')],
        'rule': [('no rule', 'return result(a.data.tanh())', '0 arrows')],
        'type': [('None', ('return ', ''), 'None')],
        'inputs unchanged': [('in place', ('a.data.tanh()', 'a.data.tanh_()'), 'it changes x')],
        'dtype': [('always float32', ('a.data.tanh()', 'a.data.float().tanh()'), 'float32')],
        'stability': [
            ('exponentials that overflow', ('a.data.tanh()', '((2*a.data).exp() - 1)/((2*a.data).exp() + 1)'),
             'nan or infinite')],
        'value': [('another function', ('a.data.tanh()', 'a.data.sigmoid()'))],
        'shape': [('one number', ('a.data.tanh()', 'a.data.tanh().mean()'), 'shape ()')],
        'exception': [('a rule that gives nothing', ('lambda g: g*(1 - tanh(a)**2)', 'lambda g: None'))]},
    'test_engine': {
        'bugs killed': [
            ('asserts nothing', '(Tensor(torch.ones(2)) + Tensor(torch.ones(2))).sum().backward()',
             'finds 0 of 7'),
            ('no shortcut', ('(h + h*h)', '(h*h)'),
             'finds 5 of 7 bugs; one that it does not find: it goes by the distance'),
            ('calls once', ('1, 2', '[1]'),
             'finds 5 of 7 bugs; one that it does not find: gradients in between'),
            ('no broadcasting', ('torch.randn(4)', 'torch.randn(3, 4)'),
             'finds 6 of 7 bugs; one that it does not find: broadcasting'),
            ('memory is not looked at', ('assert seen() is None', 'pass'),
             'finds 6 of 7 bugs; one that it does not find: its graph')],
        'right one accepted': [
            ('wants the loss to have a gradient', ('    seen =', '    assert loss.g == 1\n    seen ='),
             "the chapter's"),
            ('always fails', 'assert False', 'assert False')],
        'exception': [('calls it wrongly', 'Tensor()', 'TypeError')]}}
WRONG = {name: [(kind, how, property, *says) for property, rows in groups.items() for kind, how, *says in rows]
         for name, groups in TOLD.items()}


# ---- the bugs of the solution's card: what breaks a definition is a wrong answer, too
OF_CARD = {                         # kind -> the properties that the report may name
    'sign': 'value, gradient', 'missing 1/n': 'value, gradient', 'gate on the wrong side': 'value, gradient',
    'missing term': 'value, gradient, exception, iterator', 'missing sum(0)': 'gradient, shape',
    'missing factor': 'value, gradient, no ready-made function', 'missing transpose': 'exception',
    'wrong axis': 'exception, shape, value', 'keepdim dropped': 'shape, exception', 'wrong dtype': 'dtype',
    'overflow': 'stability, value', '= for +=': 'gradients add up', 'no zero_': 'value', 'wrong place': 'shape, value'}
# besides what only a check refuses: what no task asks about
NOT_ASKED = [('relu', 'x < 0'), ('mse', 'a == b'), ('forward_and_backward', 'len(out)'),
             ('forward_and_backward', '2*(out - targ)/out.numel()'), ('logsumexp', '.nan_to_num()')]

def card_of(name): return CARDS.get(f"{home_of[name].removeprefix('backprop13.')}.{name}", Card(None))

BY_CARD = [(name, bug) for name in EXERCISES for bug in card_of(name).bugs
           if not bug.where and bug.kind != 'no check' and (name, bug.new or bug.old) not in NOT_ASKED]


# ---- by kind ----
def renamed(name, body):
    "The solution under another name, `right`, and below it a function that may call it"
    return f'import torch\n{solution(name).replace(f"def {name}(", "def right(")}\n{body}'

def cached(name):
    "A function that keeps its result for the next inputs of the same shape"
    return renamed(name, f'kept = {{}}\ndef {name}(*args):\n'
                         '    key = args[0].shape, args[0].dtype, args[0].stride()\n'
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
    } | {name: (f'import torch\ncalls = []\ndef {name}({bodies(name, "").split("(")[1].split(")")[0]}):\n'
                '    calls.append(1)\n    assert len(calls) < 3', 'bugs killed') for name in TESTS},
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
