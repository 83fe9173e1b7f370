"""A RIS: python-hl7's MLLP server, and hl7apy's strict validation of all that it gets; what is invalid it rejects.

python -m tests.receivers.ris FOLDER [CERTIFICATE]
"""

from __future__ import annotations

import asyncio
import ssl
import sys
from pathlib import Path

from hl7.mllp import HL7StreamReader, HL7StreamWriter, start_hl7_server

from tests.receivers import hear, next_answer
from tests.receivers.hl7_faults import fault_of

FOLDER = Path(sys.argv[1])


async def talk(reader: HL7StreamReader, writer: HL7StreamWriter) -> None:
    try:
        while not writer.is_closing():
            message = await reader.readmessage()
            fault, said = fault_of(str(message)), next_answer(FOLDER)
            hear(FOLDER, text=str(message), fault=fault)
            if said == "hang":
                await asyncio.sleep(600)
            if said == "close":
                writer.close()
                return
            wanted = said or {}
            answer = message.create_ack("AR" if fault else wanted.get("code", "AA"))
            if "about" in wanted:
                answer.segment("MSA").assign_field(wanted["about"], 2)
            error = f"ERR|||{wanted['error']}^told by a test^HL70357|E\r" if "error" in wanted else ""
            writer.writeblock((str(answer) + error).encode())
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass


async def main() -> None:
    context = None
    if len(sys.argv) > 2:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(sys.argv[2])
    server = await start_hl7_server(talk, "127.0.0.1", 0, encoding="utf-8", ssl=context)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    async with server:
        await server.serve_forever()


asyncio.run(main())
