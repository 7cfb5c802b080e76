# pragma version ^0.4.0
# Sends on what it's paid: coin that arrives without a transaction of its own.

@external
@payable
def forward(to: address):
    send(to, msg.value)

# Takes coin as it comes, with or without calldata.
@external
@payable
def __default__():
    pass
