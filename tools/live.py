"""A web server for the built site on this machine, and how its pages hear that they changed:
`make serve` puts a script into what it sends, never into the files."""
import functools, gzip, html, http.server, io, sys, threading, time
from pathlib import Path
from urllib.parse import unquote

SCRIPT = """// A page that is looked at asks to be told when it has changed since it was sent
const {page, sent} = document.currentScript.dataset
let news
const listen = () => {
  news?.close()
  if (document.hidden) return                      // a browser has few connections to one server
  news = new EventSource(`/_live?${sent}&${encodeURIComponent(page)}`)
  news.onmessage = () => location.reload()
}
document.addEventListener('visibilitychange', listen)
listen()
"""


class News:
    "When each page was last made anew, for those that wait to hear; '' stands for all pages"
    def __init__(self): self.last, self.told = {'': time.time_ns()}, threading.Condition()

    def tell(self, page):
        with self.told:
            self.last[page] = time.time_ns()
            self.told.notify_all()

    def wait(self, page, sent, seconds=10):
        "Has `page` been made anew since it was sent? Waits for it that long"
        with self.told:
            return self.told.wait_for(lambda: max(self.last[''], self.last.get(page, 0)) > sent, seconds)


class Handler(http.server.SimpleHTTPRequestHandler):
    "Quiet, never out of date, and text goes compressed, as from GitHub Pages"
    news = None                                    # with News, pages are told of changes
    def log_message(self, *args): pass
    def end_headers(self):                         # a font stays as it is, and asking anew, pages move when it comes
        self.send_header('Cache-Control', 'max-age=86400' if self.path.endswith('.woff2') else 'no-cache')
        super().end_headers()

    def do_GET(self):
        address, _, query = self.path.partition('?')
        if self.news and address == '/_live': self.listen(*query.partition('&')[::2])
        else: super().do_GET()

    def listen(self, sent, page):
        "Keep the line open, and say when the page has changed"
        if not sent.isdigit(): return self.send_error(404, 'No time')
        self.send_response(200)
        self.send_header('Content-Type', 'text/event-stream')
        self.end_headers()
        try:
            while not (new := self.news.wait(unquote(page), int(sent))): self.say(': still here')
            if new: self.say('data: changed')
        except OSError: pass                       # the reader left

    def say(self, line):
        self.wfile.write(f'{line}\n\n'.encode())
        self.wfile.flush()

    def send_head(self):
        try: return self.text(Path(self.translate_path(self.path))) or super().send_head()
        except (ValueError, OSError): self.send_error(404, 'No file can have this name')  # a NUL, or too long

    def text(self, f):
        "The answer for a file of text: compressed, if the reader takes it so; a page with the script"
        if self.news and self.path == '/_live.js':
            return self.answer(SCRIPT.encode(), 'text/javascript')
        if f.is_dir(): f /= 'index.html'
        elif self.path.partition('?')[0].endswith('/'): return None
        if f.suffix not in ('.html', '.css', '.js', '.json', '.svg') or not f.is_file(): return None
        sent, blob = time.time_ns(), f.read_bytes()
        if self.news and f.suffix == '.html':
            page = html.escape(f.relative_to(self.directory).as_posix())
            script = f'<script src="/_live.js" data-page="{page}" data-sent="{sent}"></script>'
            blob = blob.replace(b'</head>', script.encode() + b'</head>', 1)
        return self.answer(blob, self.guess_type(f))

    def answer(self, blob, kind):
        packed = 'gzip' in self.headers.get('Accept-Encoding', '')
        if packed: blob = gzip.compress(blob, 6, mtime=0)
        self.send_response(200)
        if packed: self.send_header('Content-Encoding', 'gzip')
        for k, v in (('Content-Type', kind), ('Content-Length', len(blob))): self.send_header(k, v)
        self.end_headers()
        return io.BytesIO(blob)


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    def handle_error(self, *args):                 # a reader that leaves in the middle is no error
        if not isinstance(sys.exc_info()[1], ConnectionError): super().handle_error(*args)


def serve(folder, port, changed=None):
    """Serve `folder` on this machine until Ctrl-C, at the first free port from `port`. `changed` yields each page
    that is made anew, or '' for all, and who looks at one sees it reload."""
    class Live(Handler): news = News() if changed else None
    for p in range(port, port+100):
        try: server = Server(('127.0.0.1', p), functools.partial(Live, directory=str(folder))); break
        except (OSError, OverflowError) as e: last = e
    else: sys.exit(f'site: no free port from {port} to {port+99} ({last}); give another with --port')
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f'The site is at http://127.0.0.1:{server.server_port}/ (Ctrl-C stops it)', flush=True)
    try:
        for page in changed or (): Live.news.tell(page)
        while True: time.sleep(60)
    except KeyboardInterrupt: print()
    finally:
        server.shutdown()
        server.server_close()
