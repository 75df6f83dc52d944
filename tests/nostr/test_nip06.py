import pytest

from pylon.errors import IdentityError
from pylon.nostr import nip06
from pylon.nostr.keys import Keys

WORDS = "leader monkey parrot ring guide accident before fence cannon height naive bean"
SECOND = ("what bleak badge arrange retreat wolf trade produce cricket blur garlic valid proud "
          "rude strong choose busy staff weather area salt hollow arm fade")


def test_the_first_vector_of_the_nip():
    keys = Keys(nip06.words_to_secret(WORDS))
    assert keys.npub == "npub1zutzeysacnf9rru6zqwmxd54mud0k44tst6l70ja5mhv8jjumytsd2x7nu"
    assert nip06.words_to_secret(WORDS).hex() == (
        "7f7ff03d123792d6ac594bfa67bf6d0c0ab55b6b1fdb6249303fe861f1ccba9a")


def test_the_second_vector_of_the_nip():
    assert nip06.words_to_secret(SECOND).hex() == (
        "c15d739894c81a2fcfd3a2df85a0d2c0dbc47a280d092799f144d73d7ae78add")


def test_accounts_are_independent_keys():
    secrets = {nip06.words_to_secret(WORDS, account) for account in (0, 1, 2, 2**31 - 1)}
    assert len(secrets) == 4


@pytest.mark.parametrize("account", [-1, 2**31])
def test_there_is_no_such_account(account):
    with pytest.raises(IdentityError):
        nip06.words_to_secret(WORDS, account)


def test_bip32_vector_1():
    seed = bytes.fromhex("000102030405060708090a0b0c0d0e0f")
    hard = 2**31
    assert nip06.derive(seed, []).hex() == (
        "e8f32e723decf4051aefac8e2c93c9c5b214313817cdb01a1494b917c8436b35")
    assert nip06.derive(seed, [hard, 1, 2 + hard, 2, 1_000_000_000]).hex() == (
        "471b76e389e528d6de6d816857e012c5455051cad6660850e58372a6c3e6e7c8")


def test_bip39_seed():
    words = "abandon " * 11 + "about"
    assert nip06.seed_of(words).hex() == (
        "5eb00bbddcf069084889a8ab9155568165f5c453ccb85e70811aaed6f6da5fc1"
        "9a5ac40b389cd370d086206dec8aa6c43daea6690f20ad3d8d48b2d2ce9e38e4")


@pytest.mark.parametrize("text", [WORDS.upper(), f"  {WORDS}\n", WORDS.replace(" ", "  \t"),
                                  WORDS.replace(" ", "\u3000")])
def test_words_as_people_paste_them(text):
    assert nip06.words_to_secret(text) == nip06.words_to_secret(WORDS)


def test_generated_words_are_good():
    words = nip06.generate_words()
    nip06.check_words(words)
    assert len(words.split()) == 12 and words != nip06.generate_words()


@pytest.mark.parametrize("words, says", [
    (WORDS.replace("parrot", "parot"), "word 3 .* did you mean 'parrot'"),
    (WORDS.replace("parrot", "xyzzyq"), "word 3 is not"),
    (" ".join(WORDS.split()[:11]), "there are 11 words"),
    (WORDS + " bean", "there are 13 words"),
    (WORDS.replace("monkey", "parrot"), "checksum"),
    ("", "word 1"), ("leader", "there are 1 words")])
def test_the_wrong_word_is_named_and_no_other(words, says):
    with pytest.raises(IdentityError, match=says) as err:
        nip06.check_words(words)
    assert "leader" not in str(err.value) and "accident" not in str(err.value)
    with pytest.raises(IdentityError):
        nip06.words_to_secret(words)
