"""A chain of blocks around the real SVM: the inside of the process that tests/nodes_solana.py starts.

Transactions are executed by LiteSVM, which is Agave's runtime with the real System, Token, Token-2022, Associated Token and
Address Lookup Table programs: balances, fees and failures are its own. Blocks, their hashes, commitment and pruning are
made here.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from base58 import b58encode
from solders.account import Account
from solders.address_lookup_table_account import AddressLookupTableAccount
from solders.hash import Hash
from solders.instruction import Instruction
from solders.keypair import Keypair
from solders.litesvm import LiteSVM
from solders.message import Message, MessageV0, MessageV1
from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction
from solders.transaction_metadata import FailedTransactionMetadata, TransactionMetadata

TOKEN = Pubkey.from_string("TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA")
TOKEN_2022 = Pubkey.from_string("TokenzQdBNbLqP5VEhdkAS6EPFLC1PHnBqCXEpPxuEb")
WRAPPED_SOL = Pubkey.from_string("So11111111111111111111111111111111111111112")

SOL = 10**9  # lamports
ACCOUNT_SIZE = 165  # bytes of a token account without extensions
RECENT = 150  # blocks for which a hash may be named by transactions, and a status is found without history


_VERSIONS: dict[type, int | str] = {Message: "legacy", MessageV0: 0, MessageV1: 1}


class RefusedError(Exception):
    """What a validator answers with an error in JSON-RPC."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass
class Block:
    """transactions: as getBlock shows them. height: blocks before this one."""

    slot: int
    height: int
    parent_slot: int
    parent: str
    hash: str
    at: int
    transactions: list[dict[str, Any]] = field(default_factory=list)


class Chain:
    """Blocks around the SVM. Methods hold the lock."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.svm = LiteSVM().with_lamports(10**18).with_blockhash_check(False)
        self.bank = Keypair()
        self.keys = {self.bank.pubkey(): self.bank}
        self.svm.airdrop(self.bank.pubkey(), 10**17)
        # Wrapped SOL's mint is in the genesis of every cluster: 9 decimals, initialised, of nobody.
        wrapped = bytes(44) + bytes([9, 1]) + bytes(36)
        self.svm.set_account(WRAPPED_SOL, Account(SOL, wrapped, TOKEN))
        self.lag = 0
        self.oldest = 0
        self.genesis = str(Hash(secrets.token_bytes(32)))
        self.blocks = {0: Block(0, 0, 0, str(Pubkey.default()), self.genesis, int(time.time()))}
        self.statuses: dict[str, tuple[int, Any]] = {}
        self.pending: list[dict[str, Any]] = []
        self.auto = True
        self.slot = 1
        self._enter(1)

    # ------------------------------------------------------------------------------------------------------ blocks

    @property
    def tip(self) -> Block:
        return self.blocks[max(self.blocks)]

    @property
    def finalized(self) -> Block:
        return self.blocks[max(slot for slot in self.blocks if slot <= max(self.tip.slot - self.lag, 0))]

    def mine(self, blocks: int = 1) -> int:
        """Closes the slot that is open, with what it holds, and more after it. The slot of the last one."""
        with self.lock:
            for _ in range(blocks):
                tip = self.tip
                content = [
                    tip.hash,
                    str(self.slot),
                    *(item["transaction"]["signatures"][0] for item in self.pending),
                ]
                digest = hashlib.sha256("/".join(content).encode()).digest()
                at = max(int(time.time()), tip.at)
                block = Block(
                    self.slot, tip.height + 1, tip.slot, tip.hash, str(Hash(digest)), at, self.pending
                )
                self.blocks[self.slot] = block
                for item in self.pending:
                    self.statuses[item["transaction"]["signatures"][0]] = (self.slot, item["meta"]["err"])
                self.pending = []
                self._enter(self.slot + 1)
            return self.tip.slot

    def skip(self, slots: int = 1) -> None:
        """The leaders of the next slots are away. What waits goes into the block after them."""
        with self.lock:
            self._enter(self.slot + slots)

    def _enter(self, slot: int) -> None:
        self.slot = slot
        self.svm.warp_to_slot(slot)
        newest = sorted(self.blocks, reverse=True)[:RECENT]
        self.svm.set_slot_hashes([(number, Hash.from_string(self.blocks[number].hash)) for number in newest])

    def hold(self, held: bool) -> None:
        """While held, transactions share the open slot."""
        with self.lock:
            self.auto = not held
            if not held:
                self.mine()

    def set_lag(self, slots: int) -> None:
        """How far behind the tip blocks are finalized."""
        with self.lock:
            self.lag = slots

    def prune(self, below: int) -> None:
        """Cleans up all blocks below a slot, and with them the transactions."""
        with self.lock:
            self.blocks = {slot: block for slot, block in self.blocks.items() if slot >= below}
            self.statuses = {key: value for key, value in self.statuses.items() if value[0] >= below}
            self.oldest = min(self.blocks)

    # ------------------------------------------------------------------------------------------------ transactions

    def execute(self, transaction: VersionedTransaction) -> tuple[str, Any]:
        """Into the open slot: its signature, and its error. Refused like by a validator when it couldn't even pay its fee."""
        with self.lock:
            message = transaction.message
            recent = sorted(self.blocks, reverse=True)[:RECENT]
            if str(message.recent_blockhash) not in {self.blocks[slot].hash for slot in recent}:
                raise RefusedError(-32002, "Transaction simulation failed: Blockhash not found")
            writable, readonly = self._loaded(message)
            keys = [*message.account_keys, *writable, *readonly]
            before, tokens_before = self._lamports(keys), self._tokens(keys)
            result = self.svm.send_transaction(transaction)
            if isinstance(result, FailedTransactionMetadata):
                metadata: TransactionMetadata = result.meta()
                error = json.loads(result.to_json())["err"]
                if not metadata.logs():
                    raise RefusedError(-32002, f"Transaction simulation failed: {error}")
            else:
                metadata, error = result, None
            document = {
                "version": _VERSIONS[type(message)],
                "transaction": _json_of(transaction),
                "meta": {
                    "err": error,
                    "status": {"Ok": None} if error is None else {"Err": error},
                    "fee": metadata.fee(),
                    "preBalances": before,
                    "postBalances": self._lamports(keys),
                    "innerInstructions": [],
                    "logMessages": metadata.logs(),
                    "preTokenBalances": tokens_before,
                    "postTokenBalances": self._tokens(keys),
                    "rewards": None,
                    "loadedAddresses": {
                        "writable": [str(key) for key in writable],
                        "readonly": [str(key) for key in readonly],
                    },
                    "computeUnitsConsumed": metadata.compute_units_consumed(),
                },
            }
            self.pending.append(document)
            if self.auto:
                self.mine()
            return str(transaction.signatures[0]), error

    def send(
        self,
        instructions: Sequence[Instruction],
        *signers: Keypair,
        table: AddressLookupTableAccount | None = None,
        version_1: bool = False,
        fail: bool = False,
    ) -> str:
        """The bank pays the fee, unless other signers are named. fail: whether the transaction is meant to."""
        signers = signers or (self.bank,)
        recent = Hash.from_string(self.tip.hash)
        message: Message | MessageV0 | MessageV1
        if version_1:
            message = MessageV1.try_compile(signers[0].pubkey(), instructions, recent)
        elif table is None:
            message = Message.new_with_blockhash(instructions, signers[0].pubkey(), recent)
        else:
            message = MessageV0.try_compile(signers[0].pubkey(), instructions, [table], recent)
        signature, error = self.execute(VersionedTransaction(message, signers))
        assert (error is not None) == fail, f"the transaction {'failed' if error else 'took effect'}: {error}"
        return signature

    def _loaded(self, message: Any) -> tuple[list[Pubkey], list[Pubkey]]:
        writable, readonly = list[Pubkey](), list[Pubkey]()
        for lookup in getattr(message, "address_table_lookups", ()):
            account = self.svm.get_account(lookup.account_key)
            assert account is not None
            addresses = [account.data[at : at + 32] for at in range(56, len(account.data), 32)]
            writable += [Pubkey.from_bytes(addresses[index]) for index in lookup.writable_indexes]
            readonly += [Pubkey.from_bytes(addresses[index]) for index in lookup.readonly_indexes]
        return writable, readonly

    def _lamports(self, keys: Sequence[Pubkey]) -> list[int]:
        return [self.svm.get_balance(key) or 0 for key in keys]

    def _tokens(self, keys: Sequence[Pubkey]) -> list[dict[str, Any]]:
        found = []
        for index, key in enumerate(keys):
            account = self.svm.get_account(key)
            if (
                account is None
                or account.owner not in (TOKEN, TOKEN_2022)
                or not is_token_account(account.data)
            ):
                continue
            mint = Pubkey.from_bytes(account.data[:32])
            amount = int.from_bytes(account.data[64:72], "little")
            decimals = self.decimals(mint)
            text = f"{amount / 10**decimals:.{decimals}f}"
            found.append(
                {
                    "accountIndex": index,
                    "mint": str(mint),
                    "owner": str(Pubkey.from_bytes(account.data[32:64])),
                    "programId": str(account.owner),
                    "uiTokenAmount": {
                        "amount": str(amount),
                        "decimals": decimals,
                        "uiAmount": amount / 10**decimals if amount else None,
                        "uiAmountString": text.rstrip("0").rstrip(".") if decimals else text,
                    },
                }
            )
        return found

    def decimals(self, mint: Pubkey) -> int:
        account = self.svm.get_account(mint)
        assert account is not None
        return account.data[44]


def is_token_account(data: bytes) -> bool:
    """Not a mint, and initialised."""
    return (len(data) == ACCOUNT_SIZE or (len(data) > ACCOUNT_SIZE and data[ACCOUNT_SIZE] == 2)) and data[
        108
    ] != 0


def _json_of(transaction: VersionedTransaction) -> dict[str, Any]:
    message = transaction.message
    header = message.header
    document: dict[str, Any] = {
        "header": {
            "numRequiredSignatures": header.num_required_signatures,
            "numReadonlySignedAccounts": header.num_readonly_signed_accounts,
            "numReadonlyUnsignedAccounts": header.num_readonly_unsigned_accounts,
        },
        "accountKeys": [str(key) for key in message.account_keys],
        "recentBlockhash": str(message.recent_blockhash),
        "instructions": [
            {
                "programIdIndex": item.program_id_index,
                "accounts": list(item.accounts),
                "data": b58encode(bytes(item.data)).decode(),
                "stackHeight": 1,
            }
            for item in message.instructions
        ],
    }
    if isinstance(message, MessageV0):
        document["addressTableLookups"] = [
            {
                "accountKey": str(item.account_key),
                "writableIndexes": list(item.writable_indexes),
                "readonlyIndexes": list(item.readonly_indexes),
            }
            for item in message.address_table_lookups
        ]
    if isinstance(message, MessageV1):
        document["transactionConfig"] = {}
    return {"signatures": [str(item) for item in transaction.signatures], "message": document}
