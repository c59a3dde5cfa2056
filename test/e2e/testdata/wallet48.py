"""Electrum 4.8 without a screen: each line of standard input is a command with its arguments in
JSON, each answer a line of JSON. Arguments: the folder of the wallet, the server, the network, the private key."""
import asyncio
import json
import os
import sys

from electrum import SimpleConfig, constants, util
from electrum.commands import Commands
from electrum.daemon import Daemon
from electrum.wallet import restore_wallet_from_text

folder, server, network, key = sys.argv[1:]
{"regtest": constants.BitcoinRegtest, "simnet": constants.BitcoinSimnet}[network].set_as_network()
config = SimpleConfig({"electrum_path": folder, network: True, "server": server, "oneserver": True, "auto_connect": False})
loop, stop, _ = util.create_and_start_event_loop()
daemon = Daemon(config, fd=None, listen_jsonrpc=False)
wallet = restore_wallet_from_text(key, path=None, config=config)["wallet"]
wallet.start_network(daemon.network)
commands = Commands(config=config, network=daemon.network, daemon=daemon)


async def answer(command, arguments):
    if command == "protocol":
        connection = daemon.network.interface
        return list(connection.active_protocol_tuple) if connection else []
    if command == "pay":
        return await commands.payto(*arguments, fee="0.0001", wallet=wallet)
    if command in ("getbalance", "get_tx_status", "onchain_history"):
        return await getattr(commands, command)(*arguments, wallet=wallet)
    return await getattr(commands, command)(*arguments)


for line in sys.stdin:
    command, *arguments = json.loads(line)
    try:
        result = asyncio.run_coroutine_threadsafe(answer(command, arguments), loop).result(30)
        print(json.dumps({"result": result}, default=str), flush=True)
    except Exception as e:
        print(json.dumps({"error": repr(e)}), flush=True)

os._exit(0)  # threads of the wallet go on
