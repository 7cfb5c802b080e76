# pragma version ^0.4.0
# An ERC-20 with what goes wrong in the wild: transfers that log nothing, several in one transaction, and none of any worth.

event Transfer:
    sender: indexed(address)
    receiver: indexed(address)
    amount: uint256

decimals: public(uint8)
symbol: public(String[16])
totalSupply: public(uint256)
balanceOf: public(HashMap[address, uint256])

@deploy
def __init__(symbol: String[16], decimals: uint8, supply: uint256):
    self.symbol = symbol
    self.decimals = decimals
    self.totalSupply = supply
    self.balanceOf[msg.sender] = supply
    log Transfer(sender=empty(address), receiver=msg.sender, amount=supply)

@internal
def _move(sender: address, receiver: address, amount: uint256):
    self.balanceOf[sender] -= amount
    self.balanceOf[receiver] += amount
    log Transfer(sender=sender, receiver=receiver, amount=amount)

@external
def transfer(receiver: address, amount: uint256) -> bool:
    self._move(msg.sender, receiver, amount)
    return True

@external
def transfer_twice(receiver: address, amount: uint256):
    self._move(msg.sender, receiver, amount)
    self._move(msg.sender, receiver, amount)

@external
def transfer_not(receiver: address, amount: uint256) -> bool:
    return False

@external
def set_decimals(decimals: uint8):
    self.decimals = decimals

@external
@payable
def forward(receiver: address):
    send(receiver, msg.value)
