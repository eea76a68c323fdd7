"""The report as its reader sees it: in Debian's Chromium, which has no network."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.support.wait import WebDriverWait

DRAWN = """
return Object.fromEntries([...document.querySelectorAll(".plot")].map(plot => {
  const seen = [...plot.querySelectorAll(".scatterlayer path, .barlayer path")].filter(shape => {
    const box = shape.getBoundingClientRect();
    return shape.closest(".barlayer") ? box.width * box.height > 0 : box.width + box.height > 0;
  });
  return [plot.id.replace("plot-", ""), seen.length];
}));
"""
"""How many lines, points and bars of each plot can be seen."""

TABLES = """
return Object.fromEntries([...document.querySelectorAll("section")].map(one => [one.id,
  [...one.querySelectorAll("tbody tr")].map(row => [...row.cells].map(cell => cell.innerText))]));
"""
"""The rows of each section."""


@contextmanager
def opened(page: Path) -> Iterator[webdriver.Chrome]:
    """The page, with its plots drawn. The tests run as root, which Chromium's own sandbox
    refuses."""
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--hide-scrollbars",
        "--window-size=1120,900",
        "--host-resolver-rules=MAP * ~NOTFOUND",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService("/usr/bin/chromedriver"))
    try:
        driver.get(page.as_uri())
        WebDriverWait(driver, 120).until(
            lambda one: (
                one.execute_script("return document.documentElement.dataset.plots") == "drawn"
            )
        )
        yield driver
    finally:
        driver.quit()


def requests(driver: webdriver.Chrome) -> list[str]:
    """Everything that the page asked for, itself first."""
    messages = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    return [
        one["params"]["request"]["url"]
        for one in messages
        if one["method"] == "Network.requestWillBeSent"
    ]


def complaints(driver: webdriver.Chrome) -> list[Any]:
    """What the console shows."""
    return list(driver.get_log("browser"))


def drawn(driver: webdriver.Chrome) -> dict[str, int]:
    return dict(driver.execute_script(DRAWN))


def tables(driver: webdriver.Chrome) -> dict[str, list[list[str]]]:
    return dict(driver.execute_script(TABLES))


def save_picture(driver: webdriver.Chrome, path: Path) -> None:
    """Its head and the first sections, down to the fallbacks."""
    end = driver.execute_script("return document.getElementById('pools').offsetTop")
    clip = {"x": 0, "y": 0, "width": 1120, "height": end, "scale": 1}
    taken = driver.execute_cdp_cmd(
        "Page.captureScreenshot", {"clip": clip, "captureBeyondViewport": True}
    )
    path.write_bytes(base64.b64decode(taken["data"]))
