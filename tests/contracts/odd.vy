# pragma version ^0.4.0
# A token of the old kind: its symbol is 32 bytes, its decimals are more than one byte holds.

symbol: public(constant(bytes32)) = 0x4d4b520000000000000000000000000000000000000000000000000000000000
decimals: public(uint256)

@deploy
def __init__(decimals: uint256):
    self.decimals = decimals
