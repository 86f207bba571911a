/* SPDX-License-Identifier: Apache-2.0
 * A 16550 serial port as far as Linux's driver needs it to print. */
#include "vmm.h"

#include <string.h>

enum { DATA, IER, IIR, LCR, MCR, LSR, MSR, SCRATCH };
#define DLAB 0x80u          /* LCR: the first two registers are the divisor */
#define IER_TRANSMITTER 2u
#define IIR_NONE 1u
#define IIR_TRANSMITTER 2u
#define MCR_OUT2 8u         /* gates the interrupt */
#define MCR_LOOP 0x10u
#define LSR_EMPTY 0x60u
#define MSR_CONNECTED 0xb0u

static void put(struct serial *serial, char c)
{
    if (c == '\r')
        return;
    if (c != '\n')
        serial->text[serial->length++] = c;
    if (c == '\n' || serial->length == sizeof serial->text - 1) {
        serial->text[serial->length] = 0;
        serial->length = 0;
        serial->line(serial->text);
    }
}

static void update(struct vm *vm, struct serial *serial)
{
    bool level = serial->empty && (serial->ier & IER_TRANSMITTER) && (serial->mcr & MCR_OUT2);

    if (level == serial->raised)
        return;
    serial->raised = level;
    kvm_do(vm->fd, KVM_IRQ_LINE, (&(struct kvm_irq_level){.irq = serial->irq, .level = level}));
}

/* The four outputs come back as inputs: the driver recognizes the port by that. */
static uint8_t modem_status(const struct serial *serial)
{
    uint8_t mcr = serial->mcr;

    if (!(mcr & MCR_LOOP))
        return MSR_CONNECTED;
    return (mcr & 2) << 3 | (mcr & 1) << 5 | (mcr & 4) << 4 | (mcr & 8) << 4;
}

static uint8_t get(struct serial *serial, unsigned place)
{
    uint8_t fifo = serial->fcr & 1 ? 0xc0 : 0;

    switch (place) {
    case IER:
        return serial->ier;
    case IIR:
        if (!serial->empty || !(serial->ier & IER_TRANSMITTER))
            return fifo | IIR_NONE;
        serial->empty = false;
        return fifo | IIR_TRANSMITTER;
    case LCR:
        return serial->lcr;
    case MCR:
        return serial->mcr;
    case LSR:
        return LSR_EMPTY;
    case MSR:
        return modem_status(serial);
    case SCRATCH:
        return serial->scratch;
    }
    return 0;
}

static void set(struct serial *serial, unsigned place, uint8_t value)
{
    switch (place) {
    case DATA:
        put(serial, (char)value);
        serial->empty = true;
        break;
    case IER:
        serial->ier = value & 0xf;
        serial->empty |= value & IER_TRANSMITTER;
        break;
    case IIR: /* writes: the FIFO's control */
        serial->fcr = value;
        break;
    case LCR:
        serial->lcr = value;
        break;
    case MCR:
        serial->mcr = value & 0x1f;
        break;
    case SCRATCH:
        serial->scratch = value;
        break;
    }
}

bool serial_io(struct vm *vm, struct serial *serial, uint16_t port, bool out, uint8_t *value)
{
    unsigned place = (uint16_t)(port - serial->base);

    if (place >= 8)
        return false;
    if (place < 2 && (serial->lcr & DLAB)) {
        if (out)
            serial->divisor[place] = *value;
        else
            *value = serial->divisor[place];
        return true;
    }
    if (out)
        set(serial, place, *value);
    else
        *value = get(serial, place);
    update(vm, serial);
    return true;
}
