"""What tests do on the chain of tests/solana_chain.py: payments, tokens, and what else moves them.

Instructions of the token programs are written out byte by byte: the programs that read them are the real ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from solders import system_program
from solders.address_lookup_table_account import AddressLookupTableAccount
from solders.instruction import AccountMeta, Instruction
from solders.keypair import Keypair
from solders.pubkey import Pubkey

from tests.solana_chain import ACCOUNT_SIZE, TOKEN, TOKEN_2022, WRAPPED_SOL, Chain

SYSTEM = system_program.ID
ASSOCIATED = Pubkey.from_string("ATokenGPvbdGVxr1b2hvZbsiqW5xWH25efTNsLJA8knL")
MINT_SIZE = 82  # bytes


class Wallets:
    """The tests' own way in. Addresses are base58; the bank pays where nobody else is named."""

    def __init__(self, chain: Chain) -> None:
        self._chain = chain

    def wallet(self, lamports: int = 0) -> str:
        """A key pair of which this process keeps the secret."""
        pair = Keypair()
        self._chain.keys[pair.pubkey()] = pair
        if lamports:
            self.pay_many([(str(pair.pubkey()), lamports)])
        return str(pair.pubkey())

    def bank(self) -> str:
        return str(self._chain.bank.pubkey())

    def pay_many(
        self,
        payments: Sequence[Sequence[Any]],
        sender: str | None = None,
        via_table: bool = False,
        payer: str | None = None,
        version_1: bool = False,
        fail: bool = False,
    ) -> str:
        """One transaction. payer: of the fee. via_table: the receivers are named by a lookup table, in version 0."""
        source, feeder = self._pair(sender), self._pair(payer or sender)
        instructions = [
            _transfer(source.pubkey(), Pubkey.from_string(to), lamports) for to, lamports in payments
        ]
        if fail:
            # More than the sender has: the transfers before it are taken back.
            instructions.append(_transfer(source.pubkey(), source.pubkey(), 2**63))
        table = self._table([Pubkey.from_string(to) for to, _ in payments]) if via_table else None
        return self._chain.send(
            instructions, *dict.fromkeys([feeder, source]), table=table, version_1=version_1, fail=fail
        )

    def fail(self, to: str, lamports: int) -> str:
        """A payment in a transaction that fails, and is in its block all the same."""
        return self.pay_many([[to, lamports]], fail=True)

    def create_token(self, decimals: int = 6, program: str = "token") -> str:
        """A mint of the bank's, by the real program: token or token-2022. The bank holds 10^15 units."""
        chain, mint = self._chain, Keypair()
        owner = TOKEN if program == "token" else TOKEN_2022
        bank = chain.bank.pubkey()
        chain.send(
            [
                system_program.create_account(
                    {
                        "from_pubkey": bank,
                        "to_pubkey": mint.pubkey(),
                        "lamports": chain.svm.minimum_balance_for_rent_exemption(MINT_SIZE),
                        "space": MINT_SIZE,
                        "owner": owner,
                    }
                ),
                Instruction(  # InitializeMint2
                    owner, bytes([20, decimals, *bytes(bank), 0]), [AccountMeta(mint.pubkey(), False, True)]
                ),
                self._make_account(bank, bank, mint.pubkey(), owner),
                Instruction(  # MintTo
                    owner,
                    bytes([7]) + (10**15).to_bytes(8, "little"),
                    [
                        AccountMeta(mint.pubkey(), False, True),
                        AccountMeta(associated(bank, mint.pubkey(), owner), False, True),
                        AccountMeta(bank, True, False),
                    ],
                ),
            ],
            chain.bank,
            mint,
        )
        return str(mint.pubkey())

    def pay_token(
        self,
        mint: str,
        to: str,
        amount: int,
        sender: str | None = None,
        payer: str | None = None,
        via_table: bool = False,
        fail: bool = False,
    ) -> str:
        """From the sender's associated account to the receiver's, which is made in the same transaction if it isn't there.
        Wrapped SOL is wrapped on the way."""
        chain = self._chain
        source, feeder = self._pair(sender), self._pair(payer or sender)
        token, receiver = Pubkey.from_string(mint), Pubkey.from_string(to)
        program = self._program(token)
        account = associated(receiver, token, program)
        instructions = [self._make_account(feeder.pubkey(), receiver, token, program)]
        if token == WRAPPED_SOL:
            instructions += [
                _transfer(source.pubkey(), account, amount),
                Instruction(TOKEN, bytes([17]), [AccountMeta(account, False, True)]),  # SyncNative
            ]
        else:
            instructions.append(
                self._move(
                    associated(source.pubkey(), token, program), account, source.pubkey(), token, amount
                )
            )
        if fail:
            instructions.append(_transfer(source.pubkey(), source.pubkey(), 2**63))
        table = self._table([receiver, account, token]) if via_table else None
        return chain.send(instructions, *dict.fromkeys([feeder, source]), table=table, fail=fail)

    def account_of(self, mint: str, owner: str) -> str:
        """The associated token account."""
        token = Pubkey.from_string(mint)
        return str(associated(Pubkey.from_string(owner), token, self._program(token)))

    def hand_over(self, mint: str, to: str, amount: int, more: int = 0) -> str:
        """A token account of the bank's that holds `amount` becomes the receiver's, and gets `more` in the same transaction."""
        chain, pair, token = self._chain, Keypair(), Pubkey.from_string(mint)
        bank, program = chain.bank.pubkey(), self._program(token)
        source = associated(bank, token, program)
        chain.send(
            [
                system_program.create_account(
                    {
                        "from_pubkey": bank,
                        "to_pubkey": pair.pubkey(),
                        "lamports": chain.svm.minimum_balance_for_rent_exemption(ACCOUNT_SIZE),
                        "space": ACCOUNT_SIZE,
                        "owner": program,
                    }
                ),
                Instruction(  # InitializeAccount3
                    program,
                    bytes([18, *bytes(bank)]),
                    [AccountMeta(pair.pubkey(), False, True), AccountMeta(token, False, False)],
                ),
                self._move(source, pair.pubkey(), bank, token, amount),
            ],
            chain.bank,
            pair,
        )
        instructions = [
            Instruction(  # SetAuthority, of the account's owner
                program,
                bytes([6, 2, 1, *bytes(Pubkey.from_string(to))]),
                [AccountMeta(pair.pubkey(), False, True), AccountMeta(bank, True, False)],
            )
        ]
        if more:
            instructions.append(self._move(source, pair.pubkey(), bank, token, more))
        return chain.send(instructions)

    def shuffle(self, mint: str, owner: str, amount: int) -> str:
        """The owner moves an amount from its associated account to another account of its own, made in the same
        transaction."""
        chain, pair, token, holder = self._chain, Keypair(), Pubkey.from_string(mint), self._pair(owner)
        program = self._program(token)
        return chain.send(
            [
                system_program.create_account(
                    {
                        "from_pubkey": chain.bank.pubkey(),
                        "to_pubkey": pair.pubkey(),
                        "lamports": chain.svm.minimum_balance_for_rent_exemption(ACCOUNT_SIZE),
                        "space": ACCOUNT_SIZE,
                        "owner": program,
                    }
                ),
                Instruction(
                    program,
                    bytes([18, *bytes(holder.pubkey())]),
                    [AccountMeta(pair.pubkey(), False, True), AccountMeta(token, False, False)],
                ),
                self._move(
                    associated(holder.pubkey(), token, program), pair.pubkey(), holder.pubkey(), token, amount
                ),
            ],
            chain.bank,
            pair,
            holder,
        )

    def unwrap(self, owner: str, payer: str | None = None) -> str:
        """Closes the owner's account of wrapped SOL: its lamports are the owner's again."""
        holder, feeder = self._pair(owner), self._pair(payer or owner)
        account = associated(holder.pubkey(), WRAPPED_SOL, TOKEN)
        return self._chain.send(
            [
                Instruction(  # CloseAccount
                    TOKEN,
                    bytes([9]),
                    [
                        AccountMeta(account, False, True),
                        AccountMeta(holder.pubkey(), False, True),
                        AccountMeta(holder.pubkey(), True, False),
                    ],
                )
            ],
            *dict.fromkeys([feeder, holder]),
        )

    def _pair(self, address: str | None) -> Keypair:
        return self._chain.bank if address is None else self._chain.keys[Pubkey.from_string(address)]

    def _program(self, mint: Pubkey) -> Pubkey:
        account = self._chain.svm.get_account(mint)
        assert account is not None
        return account.owner

    def _make_account(self, payer: Pubkey, owner: Pubkey, mint: Pubkey, program: Pubkey) -> Instruction:
        """CreateIdempotent of the Associated Token program."""
        return Instruction(
            ASSOCIATED,
            bytes([1]),
            [
                AccountMeta(payer, True, True),
                AccountMeta(associated(owner, mint, program), False, True),
                AccountMeta(owner, False, False),
                AccountMeta(mint, False, False),
                AccountMeta(SYSTEM, False, False),
                AccountMeta(program, False, False),
            ],
        )

    def _move(self, source: Pubkey, to: Pubkey, owner: Pubkey, mint: Pubkey, amount: int) -> Instruction:
        """TransferChecked."""
        return Instruction(
            self._program(mint),
            bytes([12]) + amount.to_bytes(8, "little") + bytes([self._chain.decimals(mint)]),
            [
                AccountMeta(source, False, True),
                AccountMeta(mint, False, False),
                AccountMeta(to, False, True),
                AccountMeta(owner, True, False),
            ],
        )

    def _table(self, addresses: Sequence[Pubkey]) -> AddressLookupTableAccount:
        """A lookup table with these addresses, in two blocks of its own: it is usable from the second on."""
        chain, bank = self._chain, self._chain.bank.pubkey()
        create, table = system_program.create_lookup_table(
            {"authority_address": bank, "payer_address": bank, "recent_slot": chain.tip.slot}
        )
        extend = system_program.extend_lookup_table(
            {
                "lookup_table_address": table,
                "authority_address": bank,
                "payer_address": bank,
                "new_addresses": list(addresses),
            }
        )
        chain.send([create, extend])
        chain.mine()
        return AddressLookupTableAccount(table, addresses)


def associated(owner: Pubkey, mint: Pubkey, program: Pubkey) -> Pubkey:
    return Pubkey.find_program_address([bytes(owner), bytes(program), bytes(mint)], ASSOCIATED)[0]


def _transfer(source: Pubkey, to: Pubkey, lamports: int) -> Instruction:
    return system_program.transfer({"from_pubkey": source, "to_pubkey": to, "lamports": lamports})
