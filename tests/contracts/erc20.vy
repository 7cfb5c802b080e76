# pragma version ^0.4.0
# A plain ERC-20, with what tests need besides: any decimals, a batch of transfers, and transfers that lie.

event Transfer:
    sender: indexed(address)
    receiver: indexed(address)
    value: uint256

# Another event, so that a transfer isn't the first one of its receipt.
event Memo:
    text: String[64]

symbol: public(String[32])
decimals: public(uint8)
totalSupply: public(uint256)
balanceOf: public(HashMap[address, uint256])

@deploy
def __init__(symbol: String[32], decimals: uint8, supply: uint256):
    self.symbol = symbol
    self.decimals = decimals
    self.totalSupply = supply
    self.balanceOf[msg.sender] = supply
    log Transfer(sender=empty(address), receiver=msg.sender, value=supply)

@internal
def _move(sender: address, to: address, amount: uint256):
    self.balanceOf[sender] -= amount
    self.balanceOf[to] += amount
    log Transfer(sender=sender, receiver=to, value=amount)

@external
def transfer(to: address, amount: uint256) -> bool:
    self._move(msg.sender, to, amount)
    return True

# The same transfer so many times, in one transaction.
@external
def repeat(to: address, amount: uint256, times: uint256):
    for i: uint256 in range(times, bound=1000):
        self._move(msg.sender, to, amount)

# A transfer behind other events.
@external
def annotated(to: address, amount: uint256, memos: uint256):
    for i: uint256 in range(memos, bound=1000):
        log Memo(text="nothing to see here")
    self._move(msg.sender, to, amount)

# Says no, moves nothing and logs nothing.
@external
def declined(to: address, amount: uint256) -> bool:
    return False

# Succeeds and logs a transfer of nothing.
@external
def nothing(to: address) -> bool:
    self._move(msg.sender, to, 0)
    return True

# Logs what never happens: amounts no supply could cover.
@external
def claim(sender: address, to: address, amount: uint256):
    log Transfer(sender=sender, receiver=to, value=amount)

# A transfer as ERC-721 logs it: the amount is a topic, the data is empty.
@external
def collectible(to: address, id: uint256):
    raw_log(
        [
            keccak256("Transfer(address,address,uint256)"),
            convert(msg.sender, bytes32),
            convert(to, bytes32),
            convert(id, bytes32),
        ],
        b"",
    )

# A Transfer with more data than ERC-20's.
@external
def verbose(to: address, amount: uint256):
    raw_log(
        [keccak256("Transfer(address,address,uint256)"), convert(msg.sender, bytes32), convert(to, bytes32)],
        concat(convert(amount, bytes32), convert(amount, bytes32)),
    )
