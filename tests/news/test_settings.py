"""Settings of the news service: what is refused, and that a key is never shown."""

from pathlib import Path

import pytest

from services.common.errors import SettingsError
from services.news.settings import DEFAULT_FEEDS, NewsSettings

KEY = "canary0123456789"


def load(**values: str) -> NewsSettings:
    return NewsSettings.load({f"NEWS_{name.upper()}": value for name, value in values.items()})


def test_six_feeds_are_read_by_default() -> None:
    settings = load()
    assert settings.feeds_by_name == dict(feed.split("=", 1) for feed in DEFAULT_FEEDS)
    assert len(settings.feeds_by_name) == 6
    assert settings.sources == ("rss",)
    assert settings.stale_after_s == 3600


def test_what_follows_the_question_mark_of_a_feed_is_not_shown() -> None:
    shown = load(feeds="mine=https://a.example/feed?api_key=secret&x=1").model_dump_json()
    assert "https://a.example/feed?***" in shown
    assert "secret" not in shown


def test_feeds_are_named_or_called_by_their_host() -> None:
    settings = load(feeds="mine=https://a.example/feed?x=1, https://www.b.example/rss")
    assert settings.feeds_by_name == {
        "mine": "https://a.example/feed?x=1",
        "b.example": "https://www.b.example/rss",
    }


def test_settings_of_news_signals_are_not_ours() -> None:
    NewsSettings.load({"NEWS_SIGNALS_ENGINE": "llm", "NEWS_RSS_INTERVAL_S": "5"})


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"feeds": "ftp://a.example/x"}, "NEWS_FEEDS: .* is no feed"),
        ({"feeds": "mine=a.example/x?key=canary"}, r"NEWS_FEEDS: 'mine=a.example/x\?\*\*\*' is no feed"),
        ({"cryptopanic_url": "https://u:canary@a.example"}, "NEWS_CRYPTOPANIC_URL"),
        ({"feeds": "https://me:secret@a.example/x"}, "must hold no password"),
        ({"feeds": "a=https://a.example/x,a=https://b.example/x"}, "two feeds have one name"),
        ({"feeds": "file=https://a.example/x"}, "name of another source"),
        ({"feeds": " , "}, "name at least one feed"),
        ({"sources": "rss,twitter"}, "unknown source 'twitter'; known: rss, cryptopanic, file"),
        ({"sources": "rss,file"}, "file goes alone"),
        ({"sources": "file"}, "NEWS_FILE_PATH"),
        ({"sources": "cryptopanic"}, "NEWS_CRYPTOPANIC_TOKEN: CryptoPanic needs a key"),
        ({"cryptopanic_interval_s": "29"}, "NEWS_CRYPTOPANIC_INTERVAL_S: .* 30"),
        ({"cryptopanic_plan": "free"}, "NEWS_CRYPTOPANIC_PLAN"),
        ({"cryptopanic_currencies": "BTC,Bitcoin!"}, "'Bitcoin!' is no coin"),
        ({"cryptopanic_url": "https://x.example/api"}, "NEWS_CRYPTOPANIC_URL"),
        ({"file_columns": "headline=Title"}, "write field=column; fields: title, published"),
        ({"file_columns": "title"}, "write field=column"),
        ({"file_speed": "-1"}, "NEWS_FILE_SPEED"),
        ({"max_age_h": "100"}, "NEWS_MAX_AGE_H is more than NEWS_REPEAT_WINDOW_H"),
        ({"backoff_min_s": "90", "backoff_max_s": "20"}, "less than NEWS_BACKOFF_MIN_S"),
        ({"rss_intervall_s": "5"}, "did you mean NEWS_RSS_INTERVAL_S"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(values: dict[str, str], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        load(**values)


@pytest.mark.parametrize("token", [KEY + "?", f"{KEY} {KEY}", KEY[:7], KEY * 20])
def test_a_key_of_another_form_is_refused_without_showing_it(token: str) -> None:
    with pytest.raises(SettingsError, match=r"NEWS_CRYPTOPANIC_TOKEN: .*no key") as caught:
        load(sources="cryptopanic", cryptopanic_token=token)
    assert KEY[:7] not in str(caught.value)


def test_a_key_is_not_shown_with_the_settings() -> None:
    settings = load(sources="cryptopanic", cryptopanic_token=KEY)
    assert KEY not in repr(settings) + str(settings.model_dump(mode="json"))


def test_the_example_settings_are_valid() -> None:
    path = Path(__file__).parents[2] / "services" / "news" / ".env"
    assert NewsSettings.load({}, env_file=path).http_port == 8005
