"""Finding providers: what is believed, what is not, and scores that explain themselves."""

import threading

import pytest

from pylon.customer import score
from pylon.customer.discover import Directory
from pylon.customer.draft import Draft
from pylon.nostr import keys, nip89
from pylon.nostr.nip89 import Announcement
from pylon.store import providers
from pylon.store.providers import History


class Relays:
    """A pool whose relays answer what the test put there, each on a thread of its own."""

    def __init__(self):
        self.urls, self.events, self.silent = ["wss://a.example"], [], set()
        self.asked, self.threads = [], []

    def connected(self):
        return list(self.urls)

    def subscribe(self, sub):
        self.asked.append(sub)
        for url in self.urls:
            thread = threading.Thread(target=self.answer, args=(sub, url))
            self.threads.append(thread)
            thread.start()

    def answer(self, sub, url):
        if url not in self.silent:
            sub.on_events(url, self.events)
            sub.on_eose(url)

    def unsubscribe(self, name):
        self.asked = [sub for sub in self.asked if sub.name != name]

    def close(self):
        for thread in self.threads:
            thread.join()


@pytest.fixture
def relays():
    relays = Relays()
    yield relays
    relays.close()


@pytest.fixture
def directory(market, relays):
    return Directory(market.db, relays, "regtest", market.clock.wall, market.clock.steady)


def announce(relays, clock, beat=0, **facts):
    """A provider that announces itself; `beat` is the age of its heartbeat, None: none."""
    who = keys.generate()
    said = Announcement(**{"d": "x", "name": "N", "about": "", "kinds": [5050],
                           "network": "regtest", **facts})
    relays.events.append(nip89.build(who, said, clock.now() - 1000))
    if beat is not None:
        at = clock.now() - beat
        relays.events.append(nip89.heartbeat(who, "x", at, at + 2000))
    return who.pubkey


def test_only_living_providers_unless_asked_otherwise(directory, relays, market):
    fresh = announce(relays, market.clock)
    old = announce(relays, market.clock, beat=901)
    never = announce(relays, market.clock, beat=None)
    directory.look([5050])
    assert [one.pubkey for one in directory.found(5050)] == [fresh]
    assert {one.pubkey for one in directory.found(5050, everybody=True)} == {fresh, old, never}


def test_a_heartbeat_from_the_future_is_no_life(directory, relays, market):
    announce(relays, market.clock, beat=-3600)
    directory.look([5050])
    assert directory.found(5050) == []


def test_the_newest_announcement_counts(directory, relays, market):
    who = keys.generate()
    for at, price in ((10, 5000), (20, 3000), (5, 1)):
        relays.events.append(nip89.build(who, Announcement("x", "N", "", [5050], price_msats=price),
                                         market.clock.now() - 100 + at))
    relays.events.append(nip89.heartbeat(who, "x", market.clock.now(), market.clock.now() + 300))
    directory.look([5050])
    assert directory.found(5050)[0].price_msats() == 3000


def test_other_kinds_and_networks_are_left_out(directory, relays, market):
    announce(relays, market.clock, kinds=[5100])
    announce(relays, market.clock, network="mainnet")
    directory.look([5050])
    assert directory.found(5050) == []


def test_trash_in_announcements_is_no_error(directory, relays, market):
    who = keys.generate()
    for content in ("{", "[]", '{"name": 5, "amount": {}}', "null"):
        relays.events.append(who.sign(nip89.KIND, content, [["d", content], ["k", "x"], ["k"]],
                                      market.clock.now()))
    directory.look([5050])
    assert directory.found(5050) == []


def test_a_relay_that_never_answers_costs_the_timeout_only(directory, relays, market):
    relays.urls.append("wss://silent.example")
    relays.silent.add("wss://silent.example")
    fresh = announce(relays, market.clock)
    directory.look([5050], timeout_secs=0.05)
    assert [one.pubkey for one in directory.found(5050)] == [fresh]
    assert relays.asked == []


def test_what_was_found_a_moment_ago_is_not_asked_again(directory, relays, market):
    directory.look([5050])
    rounds = len(relays.threads)
    directory.look([5050])
    assert len(relays.threads) == rounds
    market.clock.secs += 61
    directory.look([5050])
    assert len(relays.threads) == rounds + 1


def test_no_relay_is_no_wait(directory, relays):
    relays.urls = []
    directory.look([5050])
    assert directory.found() == []


def test_targets_of_an_encrypted_order(directory, relays, market):
    announce(relays, market.clock, encryption=False)
    announce(relays, market.clock, models=["other"])
    announce(relays, market.clock, price_msats=50_000)
    announce(relays, market.clock, beat=None)
    good = announce(relays, market.clock, models=["tiny"], price_msats=1000)
    wish = Draft("x", model="tiny", encrypt=True, max_msats=5000)
    assert directory.targets(wish) == [good]


def test_targets_have_not_robbed_us(directory, relays, market):
    thief = market.dealer()
    order = market.submit(max_msats=5000, first=True)
    thief.quote(order, 1000)
    market.wait(130)
    said = Announcement("x", "N", "", [5050], price_msats=1000)
    now = market.clock.now()
    relays.events += [nip89.build(thief.keys, said, now),
                      nip89.heartbeat(thief.keys, "x", now, now + 300)]
    assert directory.targets(Draft("x", encrypt=True, max_msats=5000)) == []
    found = directory.found(5050)[0]
    assert found.score.avoided
    assert (-score.LOSS_POINTS, "took 1 sat in 1 orders and did not deliver"
            ) in found.score.reasons


def test_whom_we_know_is_shown_without_an_announcement(directory, market, dealer):
    order = market.submit(first=True)
    dealer.result(order)
    found = directory.found(everybody=True)
    assert [(one.pubkey, one.history.delivered, one.announcement) for one in found] == [
        (dealer.pubkey, 1, None)]


def test_unsolicited_noise_earns_no_history(market):
    """Answering first what nobody takes would otherwise make a stranger 'trusted'."""
    noisy, good = market.dealer(), market.dealer()
    first = market.submit(provider=good.pubkey)
    good.result(first)
    for number in range(3):
        order = market.submit(f"{number}", policy="trusted")
        noisy.result(order, "NOISE")
        good.result(order, "sense")
        market.wait(6)
        assert market.order(order).result == "sense"
    histories = providers.histories(market.db)
    assert histories[noisy.pubkey].delivered == 0
    assert histories[good.pubkey].delivered == 4


def test_a_score_is_the_sum_of_its_reasons():
    for history in (History("a"), History("a", asked=9, delivered=5, failed=2, mean_secs=4.0),
                    History("a", paid=3, undelivered=2, lost_msats=9000)):
        for alive in (True, False, None):
            found = score.score(history, alive)
            assert found.points == sum(points for points, _ in found.reasons)


def test_reliability_and_speed_raise_the_score():
    def points(**facts):
        return score.score(History("a", **facts), True).points
    assert points(delivered=10) > points(delivered=1) > points() > points(failed=1)
    assert points(delivered=1, mean_secs=1.0) > points(delivered=1, mean_secs=60.0)


def test_one_loss_among_many_deliveries_is_forgiven():
    assert score.avoided(History("a", undelivered=1, delivered=9))
    assert not score.avoided(History("a", undelivered=1, delivered=10))
