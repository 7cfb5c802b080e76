"""The chains file: what is wrong with one is told all at once, each with the line it stands in; and no secret is repeated."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from maven_cli.deposits.config import read_file
from maven_cli.errors import UsageError

CHECKSUMMED = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"
USDT = "0xdAC17F958D2ee523a2206206994597C13D831ec7"
GOOD = f"""\
[[chains]]
name = "ethereum"
family = "evm"

[[chains.endpoints]]
name = "one"
secret = "env:ETH_NODE"
rate = 12.5

[[chains.tokens]]
asset = "ETH"
decimals = 18
minimum = "0.001"

[[chains.tokens]]
asset = "USDT"
contract = "{USDT}"
decimals = 6

[[chains.addresses]]
address = "{CHECKSUMMED}"
user = 7
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "chains.toml"


def problems(path: Path, text: str) -> list[tuple[int, str]]:
    """What is said of a file, by line."""
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError) as caught:
        read_file(path)
    said = str(caught.value)
    assert "\n" not in said
    assert said.startswith(f"{path}: line ")
    assert said.endswith("; nothing was changed")
    found = []
    for one in said.removeprefix(f"{path}: ").removesuffix("; nothing was changed").split("; line "):
        line, _, what = one.removeprefix("line ").partition(": ")
        found.append((int(line), what))
    return found


def line_of(text: str, part: str, nth: int = 1) -> int:
    lines = [number for number, line in enumerate(text.splitlines(), 1) if part in line]
    return lines[nth - 1]


def test_a_good_file(path: Path) -> None:
    path.write_text(GOOD)
    (chain,) = read_file(path)
    assert (chain["identity"], chain["confirmations"], chain["finality"]) == ("1", 12, "confirmations")
    assert chain["endpoints"] == [
        {"name": "one", "secret": "env:ETH_NODE", "rate": Decimal("12.5"), "concurrency": 4}
    ]
    assert [token["minimum"] for token in chain["tokens"]] == [Decimal("0.001"), 0]
    assert chain["tokens"][1]["contract"] == bytes.fromhex(USDT[2:])
    assert chain["addresses"] == [{"address": CHECKSUMMED, "user": 7, "key": bytes.fromhex(CHECKSUMMED[2:])}]


@pytest.mark.parametrize(
    ("name", "family", "confirmations", "finality"),
    [
        ("bitcoin", "bitcoin", 6, "confirmations"),
        ("ethereum", "evm", 12, "confirmations"),
        ("bsc", "evm", 15, "confirmations"),
        ("polygon", "evm", 128, "confirmations"),
        ("solana", "solana", 32, "finalized"),
    ],
)
def test_the_platform_s_chains(path: Path, name: str, family: str, confirmations: int, finality: str) -> None:
    path.write_text(f'[[chains]]\nname = "{name}"\nfamily = "{family}"\n')
    (chain,) = read_file(path)
    assert (chain["confirmations"], chain["finality"]) == (confirmations, finality)


# What is changed in the good file, the part of the line that is then wrong, and what is said of it.
WRONG: dict[str, tuple[str, str, str, str]] = {
    "a typo": ("decimals = 6", "decimal = 6", "decimal = 6", "a token has no 'decimal'; did you mean decimals?"),
    "another": ("user = 7", "usr = 7", "usr = 7", "an address has no 'usr'; did you mean user?"),
    "no idea": ("user = 7", "user = 7\nzzz = 1", "zzz", "an address has no 'zzz'"),
    "a checksum": (CHECKSUMMED, CHECKSUMMED.replace("aA", "Aa"), 'address = "', "the checksum of address 0x5Aaeb6053F3E94C9b9A09f33669435E7Ef1BeAed is wrong: a digit or the case of a letter was changed; copy it anew"),
    "a contract": (USDT, USDT.replace("dA", "Da"), "contract", "the checksum of contract 0xDaC17F958D2ee523a2206206994597C13D831ec7 is wrong: a digit or the case of a letter was changed; copy it anew"),
    "a family": ('"evm"', '"cosmos"', "family", "there is no chain family 'cosmos'; choose from evm, bitcoin, solana"),
    "78 decimals": ("decimals = 18", "decimals = 78", "= 78", "decimals must be between 0 and 77"),
    "-1 decimals": ("decimals = 18", "decimals = -1", "= -1", "decimals must be between 0 and 77"),
    "decimals as text": ("decimals = 18", 'decimals = "18"', '= "18"', "decimals must be a whole number"),
    "true decimals": ("decimals = 18", "decimals = true", "= true", "decimals must be a whole number"),
    "a minimum": ('"0.001"', '"much"', "minimum", 'minimum must be a number, like "0.001"'),
    "no minimum": ('"0.001"', "nan", "minimum", 'minimum must be a number, like "0.001"'),
    "a negative one": ('"0.001"', '"-1"', "minimum", "minimum must be between 1E-77 and 1E+77"),
    "a rate": ("rate = 12.5", "rate = 0", "rate", "rate must be between 0.001 and 1000000"),
    "a large rate": ("rate = 12.5", "rate = 1e400", "rate", "rate must be between 0.001 and 1000000"),
    "a priority": ("rate = 12.5", f"priority = {2**31}", "priority", "priority must be between -1000000 and 1000000"),
    "a large minimum": ('"0.001"', '"1e200000"', "minimum", "minimum must be between 1E-77 and 1E+77"),
    "what no terminal shows": ("env:ETH_NODE", "env:E\\u0000", "secret", "secret has a character that can't be printed"),
    "an asset": ('"ETH"', '"E/H"', "E/H", "'E/H' is not an asset's symbol"),
    "a name": ('"ethereum"', '"Ether eum"\nidentity = "1"', "Ether eum", "'Ether eum' is not a chain's name: small letters, digits and -"),
    "a chain of one's own": ('"ethereum"', '"our-own"', "[[chains]]", "chain 'our-own' needs identity, its chain id"),
    "an identity": ('"ethereum"', '"ethereum"\nidentity = "0x1"', "0x1", 'identity of an EVM chain is its chain id in decimal, as a string: "1"'),
    "a tail": ('family = "evm"', 'family = "evm"\ntail = 5', "tail", "tail must be between 12 and 100000"),
    "finality": ('family = "evm"', 'family = "evm"\nfinality = "soon"', "finality", "finality must be confirmations, safe or finalized"),
    "half a checkpoint": ('family = "evm"', 'family = "evm"\ncheckpoint_height = 5', "checkpoint_height", "a checkpoint has both checkpoint_height and checkpoint_hash"),
    "a network": ('family = "evm"', 'family = "evm"\nnetwork = "bitcoin"', "network", "only the Bitcoin family has a network"),
    "no user": ("user = 7\n", "", "[[chains.addresses]]", "an address needs user"),
    "a large user": ("user = 7", f"user = {2**63}", "user", f"user must be between {-(2**63)} and {2**63 - 1}"),
}  # fmt: skip


@pytest.mark.parametrize("name", [name for name in WRONG if name not in ("a typo", "another")])
@pytest.mark.parametrize("before", ["", "# a comment\n\n# [[chains]]\n"], ids=["", "commented"])
def test_what_is_wrong(path: Path, name: str, before: str) -> None:
    old, new, place, what = WRONG[name]
    assert old in GOOD
    text = before + GOOD.replace(old, new, 1)
    start = len(before.splitlines())
    line = start + line_of(text.removeprefix(before), place)
    assert problems(path, text) == [(line, what)]


@pytest.mark.parametrize("name", ["a typo", "another"])
def test_a_typo_of_a_key_that_is_needed(path: Path, name: str) -> None:
    old, new, place, what = WRONG[name]
    text = GOOD.replace(old, new, 1)
    found = problems(path, text)
    assert (line_of(text, place), what) in found
    assert len(found) == 2  # and that the right one is missing


@pytest.mark.parametrize(
    "secret",
    ["https://eth.example/v2/0123456789abcdef", "0123456789abcdef", "env:", "env://0123456789abcdef", "vault:0123456789abcdef"],
)  # fmt: skip
def test_a_secret_is_never_repeated(path: Path, secret: str) -> None:
    text = GOOD.replace("env:ETH_NODE", secret)
    ((line, what),) = problems(path, text)
    assert line == line_of(text, "secret")
    assert what.startswith("an endpoint's secret is named, never written down: env:VARIABLE, file:/path, or")
    assert "0123456789abcdef" not in what
    assert "eth.example" not in what


def test_a_secret_under_another_key_is_not_repeated(path: Path) -> None:
    text = GOOD.replace('secret = "env:ETH_NODE"', 'url = "https://eth.example/v2/0123456789abcdef"')
    assert problems(path, text) == [
        (5, "an endpoint needs secret"),
        (7, "an endpoint has no 'url'"),
    ]


def test_an_address_twice(path: Path) -> None:
    text = GOOD + f'\n[[chains.addresses]]\nuser = 8\naddress = "{CHECKSUMMED.lower()}"\n'
    assert problems(path, text) == [
        (len(text.splitlines()), f"{CHECKSUMMED.lower()} stands in line {line_of(text, CHECKSUMMED)} already")
    ]


@pytest.mark.parametrize(
    ("again", "what", "first"),
    [
        ('[[chains.endpoints]]\nsecret = "env:B"\nname = "one"\n', "one", "one"),
        (f'[[chains.tokens]]\nasset = "T"\ndecimals = 6\ncontract = "{USDT.lower()}"\n', "this contract", USDT),
        ('[[chains.tokens]]\nasset = "T"\ndecimals = 6', "the chain's own coin", '[[chains.tokens]]'),
        ('[[chains]]\nfamily = "evm"\nname = "ethereum"\n', "ethereum", "ethereum"),
    ],
)  # fmt: skip
def test_anything_twice(path: Path, again: str, what: str, first: str) -> None:
    text = GOOD + again
    line = len(text.splitlines()) if "coin" not in what else line_of(text, "[[chains.tokens]]", 3)
    assert problems(path, text) == [(line, f"{what} stands in line {line_of(text, first)} already")]


def test_everything_at_once(path: Path) -> None:
    """In the order of the lines, the first ten."""
    extra = "".join(
        f'[[chains.addresses]]\naddress = "0x{number}"\nuser = {number}\n' for number in range(12)
    )
    found = problems(path, GOOD.replace('"evm"', '"cosmos"') + extra)
    lines = [line for line, _ in found]
    assert lines == sorted(lines)
    assert lines[0] == 3
    assert len(found) == 10
    assert found[-1][1].endswith("; and 3 more")


SEVERAL = f"""\
# Two chains.
[[ chains ]]   # the first
name = "bitcoin"
"family" = "bitcoin"

  [[chains.addresses]]
  address = "1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2"
  user = 1

[[chains]]
name = "ethereum"
family = "evm"

[[chains . addresses]]
# address = "0x0"
user = 1
address = "{CHECKSUMMED}"
"""


def test_lines_of_several_chains(path: Path) -> None:
    path.write_text(SEVERAL)
    assert [chain["name"] for chain in read_file(path)] == ["bitcoin", "ethereum"]
    text = SEVERAL.replace("aNVN2", "aNVN3").replace("aAeb", "Aaeb")
    assert [line for line, _ in problems(path, text)] == [7, 17]
    assert [line for line, _ in problems(path, SEVERAL.replace("user", "usr"))] == [6, 8, 14, 16]
    assert problems(path, SEVERAL.replace('name = "bitcoin"', "name = 5"))[0] == (3, "name must be a string")


INLINE = f"""\
[[chains]]
name = "ethereum"
family = "evm"
tokens = [
  {{ asset = "ETH", decimals = 18 }},
  {{ asset = "USDT", contract = "{USDT}", decimals = 6 }},
]
addresses = [{{ address = "{CHECKSUMMED}", user = 1 }}]

[[chains]]
name = "bsc"
family = "evm"

[[chains.addresses]]
address = "{CHECKSUMMED}"
user = 1
"""


def test_lines_of_inline_tables(path: Path) -> None:
    """The line of the table where TOML allows no better; and tables that follow keep theirs."""
    path.write_text(INLINE)
    assert [len(chain["tokens"]) for chain in read_file(path)] == [2, 0]
    assert problems(path, INLINE.replace("decimals = 18", "decimals = 99")) == [
        (4, "decimals must be between 0 and 77")
    ]
    assert problems(path, INLINE.replace("user = 1 }", "user = 1, x = 2 }")) == [(8, "an address has no 'x'")]
    last = INLINE.rstrip().removesuffix("user = 1") + 'user = "one"\n'
    assert problems(path, last) == [(16, "user must be a whole number")]


def test_text_that_looks_like_a_header(path: Path) -> None:
    text = 'title = """\n[[chains]]\nname = 5\n# \\""" """ # """\n' + GOOD.replace(
        "decimals = 18", "decimals = 99"
    ).replace('"evm"', "'''cosmos'''")
    assert problems(path, text) == [
        (1, "there is no 'title' here; a file has [[chains]]"),
        (line_of(text, "cosmos"), "there is no chain family 'cosmos'; choose from evm, bitcoin, solana"),
        (line_of(text, "= 99"), "decimals must be between 0 and 77"),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", [(1, "a file needs at least one [[chains]]")]),
        ("chains = 5\n", [(1, "a file needs at least one [[chains]]")]),
        ("\n\nchain = []\n", [(1, "a file needs at least one [[chains]]"), (3, "there is no 'chain' here")]),
        ("chains = [1]\n", [(1, "chains must be a list of tables")]),
        ('[[chains]]\nname = "ethereum"\nfamily = "evm"\naddresses = [5]\n', [(4, "addresses must be a list of tables")]),
        ('[[chains]]\nname = "ethereum"\nfamily = "evm"\naddresses = 5\n', [(4, "addresses must be a list of tables")]),
        ('[chains]\nname = "ethereum"\n', [(1, "a file needs at least one [[chains]]")]),
    ],
)  # fmt: skip
def test_another_shape(path: Path, text: str, said: list[tuple[int, str]]) -> None:
    found = problems(path, text)
    assert [line for line, _ in found] == [line for line, _ in said]
    for (_, what), (_, expected) in zip(found, said, strict=True):
        assert what.startswith(expected)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'[[chains]\nname = "x"', r"is not TOML: .* \(at line 1, column 9\)"),
        (b'[[chains]]\nname = "x', "is not TOML: "),
        (b'[[chains]]\nname = "x"\nname = "y"\n', "is not TOML: "),
        (b'[[chains]]\nname = "\xff"\n', "is not UTF-8 text"),
        (b"[[chains]]\nstart = " + b"9" * 5000 + b"\n", "is not TOML: "),
        (b"chains = " + b"[" * 5000 + b"]" * 5000, "is not TOML: "),
    ],
)
def test_no_toml(path: Path, content: bytes, said: str) -> None:
    path.write_bytes(content)
    with pytest.raises(UsageError, match=said) as caught:
        read_file(path)
    assert "\n" not in str(caught.value)


def test_no_file(tmp_path: Path) -> None:
    for path in (tmp_path / "none.toml", tmp_path):
        with pytest.raises(UsageError, match="can't be read: "):
            read_file(path)


@pytest.mark.parametrize("value", ["[]", "{}", "1979-05-27", "true", "1.5", '""', "[1]", "-1", "9" * 30])
def test_any_value_anywhere(path: Path, value: str) -> None:
    """Of whatever type: said in one line, or taken, never a traceback."""
    said: dict[int, str] = {}
    keys: list[Any] = [line.partition(" = ")[0] for line in GOOD.splitlines() if " = " in line]
    for place, line in enumerate(GOOD.splitlines()):
        if line.partition(" = ")[0] not in keys:
            continue
        lines = GOOD.splitlines()
        lines[place] = f"{line.partition(' = ')[0]} = {value}"
        path.write_text("\n".join(lines))
        try:
            read_file(path)
        except UsageError as error:
            said[place] = str(error)
    assert said
    for place, message in said.items():
        assert "\n" not in message
        assert f"line {place + 1}: " in message
