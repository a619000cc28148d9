"""The page at `/`, in a real browser; and what it, `/docs` and clients read of the service."""

import contextlib
import io
import json
import re
import shlex
import shutil
import subprocess
import threading
from pathlib import Path

import pytest
import uvicorn
from picture_files import picture_file
from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.wait import WebDriverWait
from starlette.testclient import TestClient
from tiny_grounder import COLOURS, add_grounder
from waiting import eventually

from hvpnet import Pipeline, TriplePipeline, Tweet
from hvpnet_runtime.serving import Settings
from hvpnet_runtime.serving.address import listen, url_of
from hvpnet_runtime.serving.admission import Admission
from hvpnet_runtime.serving.api import create_api
from hvpnet_runtime.serving.in_process import InProcess

pytestmark = pytest.mark.heavy

PATIENCE = 60  # seconds for what must happen to happen; nothing is measured
NEXT = Keys.TAB

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
browsing = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no chromium and chromedriver on the path")


def test_what_is_served(client):
    limits = {"tweets": 4, "body_bytes": 300_000, "text_characters": 400, "picture_pixels": 1_000_000}
    bundles = [{"name": "ner", "task": "ner"}, {"name": "re", "task": "re"}]
    assert client.get("/v1/service").json() == {"bundles": bundles, "limits": limits}


def test_the_page_may_run_its_own_script_only(client):
    response = client.get("/")
    policy = dict(each.split(" ", 1) for each in response.headers["content-security-policy"].split("; "))
    assert policy.pop("script-src").startswith("'sha256-")
    assert policy.pop("style-src").startswith("'sha256-")
    assert policy == {
        "default-src": "'none'",
        "img-src": "blob: data:",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    assert response.headers["x-content-type-options"] == "nosniff"
    assert "http" not in response.text
    assert "innerHTML" not in response.text


def test_docs_load_nothing_from_elsewhere(settings, extractor, metrics):
    """And their files are there without the token, unlike whatever else begins like them."""
    client = TestClient(create_api(settings, extractor, metrics, token="secret"))
    page = client.get("/docs")
    assert page.status_code == client.get("/").status_code == 200
    assert "http" not in page.text.replace("https://fastapi.tiangolo.com/img/favicon.png", "")
    for file in ("swagger-ui-bundle.js", "swagger-ui.css", "favicon.png"):
        assert f"/docs-files/{file}" in page.text
        assert client.get(f"/docs-files/{file}").status_code == 200
    assert client.get("/v1/service").status_code == client.get("/docs-files").status_code == 401
    for path in ("/docs-files/../metrics", "/docs-files/%2e%2e/metrics", "/docs-files/../core.py", "/docs-filesx"):
        assert TestClient(client.app).build_request("GET", path).url.path  # as it is sent
        assert client.get(path).status_code in (401, 404)


@contextlib.contextmanager
def running(app):
    """The application at a port of this machine."""
    with listen("127.0.0.1", 0) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off"))
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        eventually(lambda: server.started)
        try:
            yield url_of(*listener.getsockname())
        finally:
            server.should_exit = True
            thread.join(PATIENCE)


@pytest.fixture
def admission(settings):
    """Counts what the service has in hand."""
    return Admission(settings.limits)


@pytest.fixture
def url(settings, extractor, metrics, admission):
    """The service of both tasks."""
    with running(create_api(settings, extractor, metrics, admission=admission)) as url:
        yield url


@pytest.fixture(scope="module")
def chromium():
    """A browser that reaches nothing but this machine."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1000,1400"):
        options.add_argument(argument)
    options.add_argument("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


class Page:
    """The page as a person has it."""

    def __init__(self, driver, url):
        self.driver, self.url = driver, url
        driver.get(url)

    def __getitem__(self, name):
        return self.driver.find_element(By.ID, name)

    def text(self, name):
        return self[name].text

    def wait(self, condition):
        return WebDriverWait(self.driver, PATIENCE).until(lambda _: condition())

    def ready(self):
        self.wait(lambda: self["bundle"].find_elements(By.TAG_NAME, "option"))
        return self

    def choose(self, name):
        self["bundle"].find_element(By.CSS_SELECTOR, f"option[value={name}]").click()

    def send(self):
        self["send"].click()
        self.wait(lambda: self["result"].is_displayed() or self.text("error"))

    def error(self):
        self.wait(lambda: self.text("error"))
        assert not self["result"].is_displayed()
        return self.text("error")

    def focused(self):
        return self.driver.switch_to.active_element.get_attribute("id")

    def press(self, *keys):
        webdriver.ActionChains(self.driver).send_keys(*keys).perform()

    def select(self, start, end):
        """Select in the text by the keyboard: characters, as a person counts them."""
        self["text"].click()
        chain = webdriver.ActionChains(self.driver).key_down(Keys.CONTROL).send_keys(Keys.HOME).key_up(Keys.CONTROL)
        chain.send_keys(Keys.ARROW_RIGHT * start)
        chain.key_down(Keys.SHIFT).send_keys(Keys.ARROW_RIGHT * (end - start)).key_up(Keys.SHIFT).perform()

    def complaints(self):
        """Lines of the browser's console, apart from answers that are errors by themselves."""
        return [each for each in self.driver.get_log("browser") if "status of" not in each["message"]]


@pytest.fixture
def page(chromium, url):
    page = Page(chromium, url).ready()
    yield page
    assert page.complaints() == []


def marks(page):
    return [
        {"start_text": mark.text.removesuffix(mark.find_element(By.CLASS_NAME, "type").text).strip(), "label": label}
        for mark in page["marked"].find_elements(By.TAG_NAME, "mark")
        for label in [mark.find_element(By.CLASS_NAME, "type").text]
    ]


def shown_score(score):
    return f"{100 * score:.0f} %" if score >= 0.9995 else f"{100 * score:.1f} %"


def curl(page):
    """What the command that the page shows is answered with."""
    arguments = shlex.split(page.text("curl").replace("\\\n", " "))
    done = subprocess.run([*arguments, "--silent"], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.fixture
def picture_tweet(settings, drawn_tweets, answers):
    """A tweet with entities, a picture and crops, and the library's answer."""
    for tweet in drawn_tweets["ner"]:
        text = tweet.text or " ".join(tweet.words)
        if tweet.image and tweet.objects:
            asked = type(tweet)(text=text, image=tweet.image, objects=tweet.objects[:2])
            (expected,) = answers("ner", [asked])
            if len(expected["entities"]) > 1:
                return asked, expected
    pytest.fail("no such tweet")


@browsing
def test_entities(page, picture_tweet):
    tweet, expected = picture_tweet
    page["text"].send_keys(tweet.text)
    page["image"].send_keys(str(tweet.image))
    page["objects"].send_keys("\n".join(map(str, tweet.objects)))
    page.send()
    assert page.text("error") == ""
    assert marks(page) == [
        {"start_text": each["text"], "label": f"{each['type']} {shown_score(each['score'])}"}
        for each in expected["entities"]
    ]
    rows = page["entities"].find_elements(By.CSS_SELECTOR, "tbody tr")
    assert [[cell.text for cell in row.find_elements(By.TAG_NAME, "td")] for row in rows] == [
        [each["text"], each["type"], shown_score(each["score"])] for each in expected["entities"]
    ]
    assert f"{len(expected['entities'])} entities in " in page.text("status")
    assert " ms" in page.text("status")
    shown = page["shown"].find_elements(By.TAG_NAME, "img")
    names = [f"Picture: {Path(tweet.image).name}", *(f"Object: {Path(each).name}" for each in tweet.objects)]
    assert [each.get_attribute("alt") for each in shown] == names
    page.wait(lambda: all(int(each.get_property("naturalWidth")) for each in shown))
    command = page.text("curl")
    assert command.startswith(f"curl '{page.url}/v1/extract'")
    assert "-F 'picture=@" in command


@browsing
def test_the_command_gives_the_same_answer(page, answers, tmp_path, monkeypatch, close_to):
    """With quotes, an emoji, a semicolon and a strange file name in it."""
    from hvpnet import Tweet

    monkeypatch.chdir(tmp_path)
    (tmp_path / 'it\'s; "odd".png').write_bytes(picture_file())
    text = 'Jordan\'s "dunk"; <b>wow</b> & @home in Paris'
    page["text"].send_keys(text)
    page["image"].send_keys(str(tmp_path / 'it\'s; "odd".png'))
    page.send()
    (result,) = curl(page)["results"]
    assert close_to(result, answers("ner", [Tweet(text=text, image=picture_file())])[0])
    page["image-list"].find_element(By.TAG_NAME, "button").click()
    assert page.focused() == "image"
    page.send()
    (result,) = curl(page)["results"]
    assert close_to(result, answers("ner", [Tweet(text=text)])[0])


@browsing
def test_relation_by_the_keyboard_alone(page, answers):
    """Behind an emoji, which is two units of JavaScript's strings and one character of ours."""
    from hvpnet import Tweet

    text = "\U0001f600 Jordan visits the Bulls"
    (expected,) = answers("re", [Tweet(text=text, head=(2, 8), tail=(20, 25))])
    page["bundle"].send_keys("re")
    page.driver.execute_script("arguments[0].value = arguments[1]", page["text"], text)
    assert page["pair"].is_displayed()
    page.select(2, 8)
    page.press(NEXT)
    assert page.focused() == "mark-head"
    page.press(Keys.ENTER)
    page.select(20, 25)
    page.press(NEXT, NEXT)
    assert page.focused() == "mark-tail"
    page.press(Keys.SPACE)
    assert page.text("pair-status") == "head: “Jordan”; tail: “Bulls”"
    page.press(NEXT, NEXT, NEXT, NEXT)
    assert page.focused() == "send"
    page.press(Keys.ENTER)
    page.wait(page["result"].is_displayed)
    told = f"{expected['relation']}, {shown_score(expected['score'])}"
    assert page.text("relation") == f"Jordan → {told} → Bulls"
    assert marks(page) == [{"start_text": "Jordan", "label": "head"}, {"start_text": "Bulls", "label": "tail"}]
    assert page.text("status").startswith(f"Relation {told} in ")
    assert '"head":[2,8],"tail":[20,25]' in page.text("curl")


@browsing
@pytest.mark.usefixtures("capitals")
def test_triples_are_told_and_drawn(page, settings):
    text = "Jordan met Florence at UNICEF , Georgia !"
    with TriplePipeline(*(Pipeline.load(path, window=True) for path in settings.bundles.values())) as pipeline:
        (expected,) = pipeline([Tweet(text=text)])
    assert expected.triples
    choices = page["bundle"].find_elements(By.TAG_NAME, "option")
    assert [each.text for each in choices] == [
        "ner (entities)", "re (relations)", "Entities and the relations between them",
    ]  # fmt: skip
    choices[2].click()
    assert not page["pair"].is_displayed()
    page["text"].send_keys(text)
    page.send()
    assert page.text("error") == ""
    listed = [each.text for each in page["triples-list"].find_elements(By.TAG_NAME, "li")]
    assert listed == [
        f"{each.head.text} → {each.relation}, {shown_score(each.score)} → {each.tail.text}" for each in expected.triples
    ]
    drawn = [each.get_attribute("textContent") for each in page["graph"].find_elements(By.TAG_NAME, "text")]
    names = [each.text for each in expected.entities]
    assert sorted(drawn) == sorted(
        [*names, *(f"{each.relation.rpartition('/')[2]} {shown_score(each.score)}" for each in expected.triples)]
    )
    assert len(page["graph"].find_elements(By.TAG_NAME, "line")) == len(listed)
    assert page.text("curl").startswith(f"curl '{page.url}/v1/triples'")
    assert page.complaints() == []


@browsing
def test_a_pair_must_be_marked_and_goes_with_its_words(page):
    page.choose("re")
    page["text"].send_keys("Jordan visits the Bulls")
    page.send()
    assert page.error() == "Mark the head: select its words in the text, then choose “Selection is the head”."
    page["mark-head"].click()
    assert page.error() == "Select the words of the head in the text first."
    page.select(0, 6)
    page["mark-head"].click()
    assert page.text("error") == ""
    page["text"].send_keys(Keys.CONTROL, Keys.HOME)
    page["text"].send_keys("Michael ")
    assert page.text("pair-status") == "head: not marked yet; tail: not marked yet"


@browsing
def test_nothing_in_a_text_becomes_markup(page):
    text = "<img src=x onerror=\"document.title='broken'\"> Jordan <script>document.title='broken'</script>"
    page["text"].send_keys(text)
    page.send()
    spans = "".join(each.text for each in page["marked"].find_elements(By.CLASS_NAME, "type"))
    assert len(page.text("marked").replace(" ", "")) == len((text + spans).replace(" ", ""))
    assert not page["result"].find_elements(By.CSS_SELECTOR, "img, script")
    assert page.driver.title == "hvpnet"


@browsing
def test_bad_pictures_are_one_sentence(page, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no picture")
    page["text"].send_keys("Jordan was great")
    page["image"].send_keys(str(tmp_path / "bad.png"))
    page.send()
    assert page.error().startswith("The picture bad.png is not an image file")
    (tmp_path / "good.png").write_bytes(picture_file())
    page["objects"].send_keys(str(tmp_path / "good.png"))
    page.send()
    page.wait(lambda: page.text("error").startswith("One of the pictures is not an image file"))
    (tmp_path / "wide.png").write_bytes(picture_file(size=(2000, 1000)))
    page["image"].send_keys(str(tmp_path / "wide.png"))
    page.send()
    page.wait(lambda: "too many pixels: 2000 x 1000, the limit is 1000000" in page.text("error"))
    (tmp_path / "heavy.png").write_bytes(bytes(400_000))
    page["image"].send_keys(str(tmp_path / "heavy.png"))
    page.send()
    page.wait(lambda: page.text("error").startswith("Text and pictures are too large together: 0.4 MB, the service"))
    page["image-list"].find_element(By.TAG_NAME, "button").click()
    page.send()
    page.wait(page["result"].is_displayed)
    assert page.text("error") == ""


BOXES = {"red": (8, 60, 88, 120), "blue": (140, 90, 200, 150)}
TURNED = 6  # Exif: show the picture turned to the right


def coloured(boxes):
    """A JPEG of 200 x 150 pixels as they are stored, with boxes in the colours that the tiny grounder knows."""
    image, file, exif = Image.new("RGB", (200, 150), "white"), io.BytesIO(), Image.Exif()
    for name, box in boxes.items():
        image.paste(COLOURS[name], box)
    exif[0x0112] = TURNED
    image.save(file, "jpeg", quality=100, subsampling=0, exif=exif)
    return file.getvalue()


@pytest.fixture(scope="module")
def finding_url(ner_bundle, tmp_path_factory):
    """A service that finds objects."""
    path = add_grounder(Path(shutil.copytree(ner_bundle, tmp_path_factory.mktemp("page") / "bundle")))
    settings = Settings.parse({"bundles": {"ner": path}, "backend": "onnxruntime-cpu"})
    extractor = InProcess(settings, pytest.fail)
    with running(create_api(settings, extractor, extractor.own_metrics)) as url:
        yield url
    extractor.close()


@pytest.fixture
def finding(chromium, finding_url):
    page = Page(chromium, finding_url).ready()
    yield page
    assert page.complaints() == []


def drawn_boxes(page):
    """Boxes as they are drawn, in pixels of the picture."""
    page.wait(lambda: page["seen-frame"].find_elements(By.CLASS_NAME, "tag"))
    scaled = page.driver.execute_script("""
        const image = document.querySelector("#seen-frame img"), all = image.getBoundingClientRect();
        return [...document.querySelectorAll("#seen-frame .box")].map((each) => each.getBoundingClientRect())
            .map((box) => [box.left - all.left, box.top - all.top, box.right - all.left, box.bottom - all.top]
                .map((edge, axis) => edge / (axis % 2 ? all.height / 150 : all.width / 200)));
    """)
    return [pytest.approx(box, abs=0.1) for box in scaled]


def labels(page):
    """What stands beside the boxes, and whether all of it is inside the picture."""
    return page.driver.execute_script("""
        const all = document.querySelector("#seen-frame img").getBoundingClientRect();
        const isInside = (box) => box.left >= all.left - 1 && box.right <= all.right + 1
            && box.top >= all.top - 1 && box.bottom <= all.bottom + 1;
        return [...document.querySelectorAll("#seen-frame .tag")].map((each) =>
            [each.textContent, isInside(each.getBoundingClientRect())]);
    """)


def listed(page):
    return [each.text for each in page["seen-list"].find_elements(By.TAG_NAME, "li")]


@browsing
@pytest.mark.parametrize("width", [360, 1000])
def test_found_objects_are_drawn_and_told(finding, tmp_path, monkeypatch, width):
    page, path = finding, tmp_path / "photo.jpg"
    path.write_bytes(coloured(BOXES))
    monkeypatch.chdir(tmp_path)  # where the command expects the picture
    viewport = {"width": width, "height": 740, "deviceScaleFactor": 1, "mobile": width < 500}
    page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", viewport)
    try:
        page["text"].send_keys("Jordan was great today")
        page["image"].send_keys(str(path))
        page.send()
        (answer,) = curl(page)["results"]
        found = answer["objects"]
        assert {each["query"] for each in found} == set(BOXES)
        for each in found:  # to the grounder, the picture has 32 x 32 pixels
            assert each["box"] == pytest.approx(BOXES[each["query"]], abs=200 / 32)
        assert drawn_boxes(page) == [each["box"] for each in found]
        shown = [f"{each['query']} {each['score']:.2g}" for each in found]
        assert labels(page) == [[f"{number} {label}", True] for number, label in enumerate(shown, 1)]
        assert page.text("seen-told") == "2 objects were found in the picture."
        assert page.text("status").endswith("2 objects were found in the picture.")
        assert listed(page) == [
            "{}, score {:.2g}: {} to {} pixels from the left, {} to {} from the top".format(
                each["query"], each["score"], *(each["box"][edge] for edge in (0, 2, 1, 3))
            )
            for each in found
        ]
        root = page.driver.execute_script("return document.documentElement")
        assert root.get_property("scrollWidth") == root.get_property("clientWidth")
        assert page.driver.execute_script(CONTRAST) == []
    finally:
        page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@browsing
def test_given_boxes_are_drawn_and_answered_alike(finding, tmp_path, monkeypatch):
    page, path = finding, tmp_path / "photo.jpg"
    path.write_bytes(coloured(BOXES))
    monkeypatch.chdir(tmp_path)
    page["text"].send_keys("Jordan was great today")
    page["image"].send_keys(str(path))
    page.send()
    (found,) = curl(page)["results"]
    boxes = [each["box"] for each in found["objects"]]
    page["boxes"].send_keys("\n".join(re.sub("[][]", "", str(box)) for box in boxes))
    page.send()
    (given,) = curl(page)["results"]
    assert given == found | {"objects": []}
    assert drawn_boxes(page) == boxes
    assert [text for text, _ in labels(page)] == ["1 given", "2 given"]
    assert page.text("seen-told") == "Boxes that were given"
    assert listed(page)[0] == "{0} to {2} pixels from the left, {1} to {3} from the top".format(*boxes[0])
    assert page["shown"].find_elements(By.TAG_NAME, "img") == []  # the picture stands there already
    page["boxes"].clear()
    page["boxes"].send_keys("4, 8, 24")
    page.send()
    told = "“4, 8, 24” is no box: write its left, top, right and bottom edge in pixels of the picture."
    page.wait(lambda: page.text("error") == told)
    assert page.focused() == "boxes"


@browsing
def test_no_objects_are_told_too(finding, tmp_path):
    page, path = finding, tmp_path / "photo.jpg"
    path.write_bytes(coloured({}))
    page["text"].send_keys("Jordan was great today")
    page.send()
    assert not page["seen"].is_displayed()  # there is no picture
    page["image"].send_keys(str(path))
    page.send()
    assert page.text("seen-told") == "No objects were found in the picture."
    assert page.text("status").endswith(" No objects were found in the picture.")
    assert not page["seen-list"].is_displayed()
    (picture,) = page["shown"].find_elements(By.TAG_NAME, "img")
    assert picture.get_attribute("alt") == "Picture: photo.jpg"
    page["objects"].send_keys(str(path))
    page.send()
    assert not page["seen"].is_displayed()  # nothing was looked for


DROP = """
const [zone, names, transfer] = [arguments[0], arguments[1], new DataTransfer()];
for (const name of names) transfer.items.add(new File(["x"], name, {type: "image/png"}));
return zone.dispatchEvent(new DragEvent("drop", {dataTransfer: transfer, bubbles: true, cancelable: true}));
"""


@browsing
def test_pictures_can_be_dropped(page):
    """One picture, which another one replaces; crops add up. What misses the zones is not opened by the browser."""
    drops = [("image-drop", ["a.png", "b.png"]), ("image-drop", ["c.png"]), ("objects-drop", ["d.png", "e.png"])]
    drops += [("objects-drop", ["f.png"]), ("curl", ["g.png"])]
    for zone, names in drops:
        assert page.driver.execute_script(DROP, page[zone], names) is False  # the browser's own answer is prevented
    captions = [
        [each.text for each in page[name].find_elements(By.TAG_NAME, "figcaption")]
        for name in ("image-list", "objects-list")
    ]
    assert captions == [["c.png"], ["d.png", "e.png", "f.png"]]
    page["objects-list"].find_element(By.CSS_SELECTOR, "[aria-label='Remove e.png']").click()
    assert [each.text for each in page["objects-list"].find_elements(By.TAG_NAME, "figcaption")] == ["d.png", "f.png"]


@browsing
def test_the_command_can_be_copied(page):
    page["text"].send_keys("Jordan was great")
    page.send()
    page["copy"].click()
    page.wait(lambda: page.text("status").startswith("The command is "))
    assert page.driver.execute_script("return getSelection().toString()").strip() == page.text("curl")


@browsing
def test_errors_of_the_text(page):
    page.send()
    assert page.error() == "Enter a text first."
    assert page.focused() == "text"
    page["text"].send_keys("x" * 401)
    page.send()
    page.wait(lambda: page.text("error") == "The text has 401 characters, the limit is 400; split it.")


@browsing
def test_an_overloaded_service(page, admission, settings):
    page["text"].send_keys("Jordan was great")
    share = admission.admit()
    share.add("tweets", settings.limits.queue)
    page.send()
    assert page.error() == "The service is overloaded; try again in 7 seconds."
    share.give_back()
    page.send()
    page.wait(page["result"].is_displayed)
    assert page.text("error") == ""
    admission.close()
    page.send()
    page.wait(lambda: page.text("error") == "The service cannot answer now; try again in 7 seconds.")


@browsing
def test_a_service_that_is_gone(chromium, settings, extractor, metrics):
    with running(create_api(settings, extractor, metrics)) as url:
        page = Page(chromium, url).ready()
    page["text"].send_keys("Jordan was great")
    page.send()
    assert page.error() == "The service cannot be reached; check that it runs, and try again."
    chromium.get_log("browser")


@browsing
def test_asks_for_the_token(chromium, settings, extractor, metrics):
    with running(create_api(settings, extractor, metrics, token="secret")) as url:
        page = Page(chromium, url)
        assert page.error() == "The service asks for a token; enter it."
        assert page.focused() == "token"
        page.press("wrong", Keys.ENTER)
        page.wait(lambda: page.text("error") == "The service does not know this token; check it.")
        page["token"].clear()
        page["token"].send_keys("secret")
        page["text"].send_keys("Jordan was great")
        page.send()
        page.wait(page["result"].is_displayed)
        assert '"Authorization: Bearer $TOKEN"' in page.text("curl")
        assert "secret" not in page.text("curl")


@browsing
@pytest.mark.parametrize("width", [360, 1000])
def test_fits_its_window(page, picture_tweet, width):
    """With a word of 300 letters, pictures, a result and an error."""
    tweet, _ = picture_tweet
    viewport = {"width": width, "height": 740, "deviceScaleFactor": 1, "mobile": width < 500}
    page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", viewport)
    try:
        page["text"].send_keys(f"{'x' * 300} {tweet.text}")
        page["image"].send_keys(str(tweet.image))
        page["objects"].send_keys("\n".join(map(str, tweet.objects)))
        page.send()
        page.driver.execute_script("fail('y'.repeat(300))")
        for name in ("pair", "token-field"):
            page.driver.execute_script(f"byId('{name}').hidden = false")
        assert page.driver.execute_script("return window.innerWidth") == width
        root = page.driver.execute_script("return document.documentElement")
        assert root.get_property("scrollWidth") == root.get_property("clientWidth")
        beyond = page.driver.execute_script(
            "return [...document.querySelectorAll('body *')].filter((each) =>"
            " each.getBoundingClientRect().right > innerWidth + 1).map((each) => each.id || each.tagName)"
        )
        assert beyond == []
    finally:
        page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@browsing
def test_screen_readers_have_names_for_everything(page, picture_tweet):
    """As Chromium's accessibility tree has them; what changes is in live regions."""
    tweet, _ = picture_tweet
    page["text"].send_keys(tweet.text)
    page["image"].send_keys(str(tweet.image))
    page.send()
    page.driver.execute_script("byId('pair').hidden = false")
    nodes = page.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    named = {}
    for node in nodes:
        role = node.get("role", {}).get("value")
        if role in ("textbox", "combobox", "button", "image", "link", "table", "list", "region", "heading", "img"):
            named.setdefault(role, []).append(node.get("name", {}).get("value", ""))
    assert {"Text"} <= set(named["textbox"])
    assert named["combobox"] == ["Bundle"]
    assert {f"Remove {Path(tweet.image).name}", "Selection is the head", "Extract", "Copy"} <= set(named["button"])
    assert all(name for role, names in named.items() for name in names if role != "table"), named
    roles = {each: page[each].get_attribute("role") for each in ("error", "status", "pair-status")}
    assert roles == {"error": "alert", "status": "status", "pair-status": "status"}


CONTRAST = """
const channel = (value) => (value /= 255) <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
const luminance = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
function behind(element) {
  for (; element; element = element.parentElement) {
    const colour = numbers(getComputedStyle(element).backgroundColor);
    if (colour.length < 4 || colour[3] > 0) return colour;
  }
  return [255, 255, 255];
}
return [...document.querySelectorAll("body *")].filter((each) => each.offsetParent && each.textContent.trim()
    && each.getAttribute("aria-disabled") !== "true").map((each) => {
  const [dark, light] = [numbers(getComputedStyle(each).color), behind(each)].map(luminance).sort((a, b) => a - b);
  return [(light + 0.05) / (dark + 0.05), each.tagName + "." + each.className + "#" + each.id];
}).filter(([ratio]) => ratio < 4.5);
"""


@browsing
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast(page, picture_tweet, scheme):
    """WCAG's AA, of all text, with marks of all kinds."""
    tweet, _ = picture_tweet
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    try:
        page["text"].send_keys(tweet.text)
        page["image"].send_keys(str(tweet.image))
        page.send()
        page.driver.execute_script("fail('An error.'); say('Said.'); byId('pair').hidden = false")
        page.driver.execute_script("for (let k = 0; k < KINDS; k++) byId('marked').append(span('a', 'k' + k, 'B 1 %'))")
        assert page.driver.execute_script(CONTRAST) == []
    finally:
        page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


@browsing
def test_docs_work_without_the_internet(chromium, url):
    """The browser of these tests resolves no name."""
    page = Page(chromium, f"{url}/docs")
    page.wait(lambda: page.driver.find_elements(By.CSS_SELECTOR, ".opblock-post"))
    paths = [each.text for each in page.driver.find_elements(By.CLASS_NAME, "opblock-summary-path")]
    assert [path.replace("\u200b", "") for path in paths] == [
        "/v1/extract",
        "/v1/triples",
        "/v1/service",
        "/healthz",
        "/readyz",
        "/metrics",
    ]
    assert page.complaints() == []
