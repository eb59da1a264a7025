"""The workbook: its formulas, recalculated by the package `formulas`, against PyTorch; the file; the link that offers
it. What `formulas` takes for an error is checked, not what Excel shows for it."""
import io, math, re, zipfile

import formulas, pytest, torch                         # without formulas nothing here is proved: an error
import torch.nn.functional as F
from openpyxl import load_workbook

from backprop13.practice.workbook import FIRST, STABLE, Download, cross_entropy_workbook, recalculator

NAMES, OUTPUTS = ['cat', 'dog', 'plane', 'fish', 'building'], [-4.89, 2.60, 0.59, -2.07, -4.57]
FORMULAS = {FIRST: 'CDEFG', STABLE: 'ABCDEFGH'}


@pytest.fixture(scope='module')
def book(): return cross_entropy_workbook(NAMES, OUTPUTS, 'dog')

@pytest.fixture(scope='module')
def recalculate(book): return recalculator(book.data)


def sheet(data, name=FIRST, **kwargs): return load_workbook(io.BytesIO(data), **kwargs)[name]

def filled(ws):
    "The cells that hold something"
    return [c for row in ws.iter_rows() for c in row if c.value is not None]

def typed(outputs, target=None):
    "The cells that a reader types into, with what he types"
    cells = {(FIRST, f'B{5+i}'): float(v) for i, v in enumerate(outputs)}
    return cells | ({(FIRST, 'B3'): target} if target else {})

def number(v): return math.nan if isinstance(v, str) else v              # an error is no number

def column(cells, name, letter, c):
    return torch.tensor([number(cells[name, f'{letter}{5+i}']) for i in range(c)], dtype=torch.float64)

def wrong(cells, outputs, k):
    "The columns and the losses, in cells as recalculated, that aren't PyTorch's for these outputs and this target"
    x, c = torch.tensor(outputs, dtype=torch.float64), len(outputs)
    hot, log_p, moved = F.one_hot(torch.tensor(k), c).double(), F.log_softmax(x, 0), x - x.max()
    end, loss = 5 + c, F.cross_entropy(x[None], torch.tensor([k]))
    want = {FIRST: dict(B=x, C=x.exp(), D=F.softmax(x, 0), E=hot, F=log_p, G=hot*log_p),
            STABLE: dict(B=x, C=moved, D=moved.exp(), E=F.softmax(x, 0), F=hot, G=log_p, H=hot*log_p)}
    one = {(FIRST, f'G{end+1}'): loss, (STABLE, f'H{end+1}'): loss, (FIRST, f'G{end+2}'): loss/math.log(10)}
    for name, cols in want.items():
        one |= {(name, f'{k}{end}'): v.sum() for k, v in cols.items() if (name, f'{k}{end}') in cells}
    def close(got, want):
        return torch.allclose(torch.as_tensor(got, dtype=torch.float64), want, rtol=1e-9, atol=1e-9)
    return ([(name, k) for name, cols in want.items() for k, v in cols.items()
             if not close(column(cells, name, k, c), v)]
            + [at for at, v in one.items() if not close(number(cells[at]), v)])


# ---- the formulas

def test_what_was_built_is_right(recalculate): assert wrong(recalculate(), OUTPUTS, 1) == []

def test_other_outputs_and_targets(recalculate):
    g = torch.Generator().manual_seed(0)
    for i in range(60):
        x, k = (torch.randn(5, generator=g)*[.1, 1, 10, 100][i % 4]).double().tolist(), i % 5
        assert wrong(recalculate(typed(x, NAMES[k])), x, k) == [], (x, k)
    assert wrong(recalculate(), OUTPUTS, 1) == []                        # nothing of all that has stayed

@pytest.mark.parametrize('c', [1, 2, 10])
def test_other_numbers_of_classes(c):
    g = torch.Generator().manual_seed(c)
    names, x = [str(i) for i in range(c)], torch.randn(c, generator=g).double().tolist()
    data = cross_entropy_workbook(names, x, str(c - 1)).data
    assert wrong(recalculator(data)(), x, c - 1) == [] and sheet(data)['B3'].number_format == '@'

def edited(book, **cells):
    wb, out = load_workbook(io.BytesIO(book.data)), io.BytesIO()
    for at, value in cells.items(): wb[FIRST][at].value = value
    wb.save(out)
    return out.getvalue()

def test_an_edited_file_is_recalculated(book):
    data = edited(book, B9=3.25, B3='building')
    assert wrong(recalculator(data)(), OUTPUTS[:4] + [3.25], 4) == []

def test_large_outputs_break_the_first_sheet_and_not_the_second(recalculate):
    x = [100*v for v in OUTPUTS]
    for k, name in enumerate(NAMES):
        cells, want = recalculate(typed(x, name)), F.cross_entropy(torch.tensor([x]).double(), torch.tensor([k]))
        # exp(260) is a number still, but a softmax below 1e-323 is 0, has no ln, and 0 times an error is an error
        assert cells[FIRST, 'C6'] > 1e100 and cells[FIRST, 'D5'] == 0
        assert cells[FIRST, 'F5'] == cells[FIRST, 'G11'] == '#NUM!'
        assert cells[STABLE, 'H11'] == pytest.approx(want.item(), rel=1e-9, abs=1e-9)
    cells = recalculate(typed([710.] + OUTPUTS[1:]))
    assert cells[FIRST, 'C5'] == cells[FIRST, 'G11'] == '#NUM!'
    assert cells[STABLE, 'H11'] == pytest.approx(710 - 2.6, rel=1e-9)
    assert recalculate(typed([709.] + OUTPUTS[1:]))[FIRST, 'C5'] == pytest.approx(math.exp(709), rel=1e-9)

def test_an_unknown_target_is_said(recalculate):
    assert recalculate()[FIRST, 'C3'] == ''
    assert recalculate({(FIRST, 'B3'): 'cod'})[FIRST, 'C3'] == '← choose one of the classes'


def spoilt(data, at, old, new):
    "The file with `old` replaced in the formulas of the sheet and column `at`"
    wb, out, hits = load_workbook(io.BytesIO(data)), io.BytesIO(), 0
    for cell in filled(wb[at[0]]):
        if cell.column_letter == at[1] and cell.data_type == 'f' and old in cell.value:
            cell.value, hits = cell.value.replace(old, new), hits + 1
    assert hits, f'{old} is in no formula of {at}'
    wb.save(out)
    return out.getvalue()

@pytest.mark.parametrize('at,old,new', [
    ((FIRST, 'F'), 'LN(', 'LOG('), ((STABLE, 'G'), 'LN(', 'LOG('), ((FIRST, 'G'), '=-G10', '=G10'),
    ((FIRST, 'D'), '/C$10', '/C$5'), ((FIRST, 'C'), 'SUM(C5:C9)', 'SUM(C5:C8)'), ((FIRST, 'E'), 'A6=', 'A7='),
    ((STABLE, 'C'), 'MAX', 'MIN'), ((FIRST, 'G'), 'E5*', ''),
    ((STABLE, 'B'), '!B8', '!B9'), ((STABLE, 'H'), '=-H10', '=-H9'), ((FIRST, 'G'), 'LOG(', 'LN(')])
def test_a_wrong_formula_is_caught(book, at, old, new, record_property):
    record_property('mutant', 'workbook')
    assert wrong(recalculator(spoilt(book.data, at, old, new))(), OUTPUTS, 1)


# ---- the file

def hard_coded(data):
    "Cells with a number in place of a formula, and columns that lack formulas"
    for name, letters in FORMULAS.items():
        ws = sheet(data, name)
        for cell in filled(ws):
            mine = name == FIRST and cell.column_letter == 'B' and 5 <= cell.row < 10
            if cell.data_type == 'n' and not mine: yield name, cell.coordinate
        yield from ((name, k) for k in letters if not all(ws[f'{k}{r}'].data_type == 'f' for r in range(5, 10)))

def test_all_but_the_inputs_are_formulas(book):
    assert list(hard_coded(book.data)) == []
    ws = sheet(book.data)
    assert [ws[f'B{r}'].value for r in range(5, 10)] == OUTPUTS and ws['B3'].value == 'dog'

@pytest.mark.parametrize('at', ['G11', 'D7', 'E5'])
def test_a_number_for_a_formula_is_caught(book, at): assert list(hard_coded(edited(book, **{at: .5})))

def test_stored_values_are_the_formulas_own(book, recalculate):
    "What a viewer shows that doesn't calculate"
    cells, n = recalculate(), 0
    for name in FORMULAS:
        stored, live = sheet(book.data, name, data_only=True), sheet(book.data, name)
        for cell in (c for c in filled(live) if c.data_type == 'f'):
            got, want, n = stored[cell.coordinate].value, cells[name, cell.coordinate], n + 1
            if want == '': want = None                                       # a message with nothing to say
            elif not isinstance(want, str): want = pytest.approx(want, abs=1e-9)
            assert got == want, (name, cell.coordinate)
    assert n > 60
    over = sheet(cross_entropy_workbook(['a', 'b'], [800., 0.], 'a').data, data_only=True)
    assert over['C5'].value is None and over['G8'].value is None        # an error is left to the spreadsheet

def test_the_bytes_are_always_the_same(book, monkeypatch):
    import openpyxl.writer.excel as writer
    class Later(writer.datetime.datetime):
        @classmethod
        def now(cls, tz=None): return cls(2031, 5, 6, 7, 8, 9, tzinfo=tz)
    monkeypatch.setattr(writer.datetime, 'datetime', Later)
    assert cross_entropy_workbook(NAMES, OUTPUTS, 'dog').data == book.data
    with zipfile.ZipFile(io.BytesIO(book.data)) as z:
        assert z.testzip() is None and {i.date_time for i in z.infolist()} == {(2026, 1, 1, 0, 0, 0)}

def test_its_form(book):
    wb = load_workbook(io.BytesIO(book.data))
    assert wb.sheetnames == [FIRST, STABLE] and wb.properties.title
    assert wb.properties.modified == wb.properties.created
    ws = wb[FIRST]
    choices = {str(v.sqref): v for v in ws.data_validations.dataValidation}
    assert choices['B3'].type == 'list' and choices['B3'].formula1 == '$A$5:$A$9'
    assert choices['B5:B9'].type == 'decimal'
    bordered = {c.coordinate for c in filled(ws) if c.border.left and c.border.left.style}
    assert bordered == {'B3', *(f'B{r}' for r in range(5, 10))}
    for ws in wb:
        assert ws.freeze_panes == 'B5' and ws.page_setup.orientation == 'landscape' and ws.print_title_rows
        assert min(ws.column_dimensions[k].width for k in FORMULAS[ws.title]) > 10
    notes = ' '.join(str(c.value) for c in filled(wb[FIRST]))
    assert 'LOG, in a spreadsheet, is base 10' in notes and '#NUM!' in notes

def test_a_name_is_text_whatever_it_looks_like():
    names = ['=1+1', '#N/A', '<b>&"', '7']
    ws = sheet(cross_entropy_workbook(names, [1., 2., 3., 4.], '=1+1').data)
    assert [ws[f'A{r}'].value for r in range(5, 9)] == names
    assert [ws[f'A{r}'].data_type for r in range(5, 9)] == ['s']*4
    assert ws['B3'].value == '=1+1' and ws['B3'].data_type == 's'

@pytest.mark.parametrize('names,outputs,target,says', [
    (NAMES, OUTPUTS[:4], 'dog', 'got 5 names and outputs of shape (4,)'), ([], [], 'dog', 'got 0 names'),
    (['a', 'b'], [[1., 2.]], 'a', 'outputs of shape (1, 2)'), (['a'], 1., 'a', 'outputs of shape ()'),
    (NAMES, OUTPUTS, 'cod', "no class 'cod'; choose one of ['cat', 'dog'"),
    (NAMES, OUTPUTS, 1, 'no class 1; choose one of'),
    (['a', 'b'], [0., math.inf], 'a', 'outputs must be finite'),
    (['a', 'b'], [0., math.nan], 'a', 'outputs must be finite'),
    (['a', 'A'], [0., 1.], 'a', 'names must differ, capitals aside'),
    (['a', ' '], [0., 1.], 'a', 'names must be text, and not empty'),
    ([1, 2], [0., 1.], 1, 'names must be text'), (['a', 'b'], ['x', 'y'], 'a', 'outputs must be numbers')])
def test_bad_input_gets_one_sentence(names, outputs, target, says):
    with pytest.raises(ValueError, match='cross_entropy_workbook: .*' + re.escape(says)) as e:
        cross_entropy_workbook(names, outputs, target)
    assert '\n' not in str(e.value)


# ---- the link

def test_the_link_holds_the_file():
    d = Download(b'abc'*1000, 'a"b.txt', 'text/plain')
    assert d._repr_html_().startswith('<p><a download="a&quot;b.txt" href="data:text/plain;base64,YWJj')
    assert repr(d) == 'a"b.txt, 3\xa0kB'


@pytest.mark.parametrize('scripts', [True, False])
def test_the_page_offers_it(open_page, book, tmp_path, scripts):
    page = open_page('minibatch_training.html', java_script_enabled=scripts, viewport={'width': 360, 'height': 800})
    link = page.locator('a[download="cross_entropy.xlsx"]')
    assert link.count() == 1
    link.focus()
    with page.expect_download() as d: page.keyboard.press('Enter')
    d.value.save_as(tmp_path/'got.xlsx')
    assert d.value.suggested_filename == 'cross_entropy.xlsx'
    assert (tmp_path/'got.xlsx').read_bytes() == book.data
    assert re.search(rf'{len(book.data)/1000:.0f}\s?kB', link.locator('..').inner_text())
    assert wrong(recalculator((tmp_path/'got.xlsx').read_bytes())(), OUTPUTS, 1) == []
